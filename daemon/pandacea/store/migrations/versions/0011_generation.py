"""A number that grows with each start and each run, so that a database put back from a backup shows."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "generation",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("requests_since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
