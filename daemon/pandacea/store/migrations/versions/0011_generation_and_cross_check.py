"""A number by which a database put back from a backup shows; how far the endpoints that are not followed were read."""

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
    op.create_table(
        "cross_check",
        sa.Column("deployment", sa.Integer(), nullable=False),
        sa.Column("endpoint", sa.String(length=64), nullable=False),
        sa.Column("settled_to", sa.BigInteger(), nullable=False),
        sa.Column("denials", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("deployment", "endpoint"),
    )
