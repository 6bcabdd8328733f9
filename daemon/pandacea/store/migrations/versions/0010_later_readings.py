"""When a settled range is read again, and how far the slow scan has come."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("settled_range") as table:
        table.add_column(sa.Column("due_at", sa.Float(), nullable=False, server_default="0"))
    with op.batch_alter_table("deployment") as table:
        table.add_column(sa.Column("scanned_number", sa.BigInteger(), nullable=False, server_default="-1"))
