"""Who held the database last; a lease's uint32 of computations in a job."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "holder",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("word", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("job") as table:
        table.alter_column("max_computations", existing_type=sa.Integer(), type_=sa.BigInteger(), existing_nullable=False)
