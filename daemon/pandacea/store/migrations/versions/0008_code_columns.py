"""An approval is bound to the columns it was given for. One of before names none, and covers nothing until it is given again."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("code_submission") as table:
        table.add_column(sa.Column("columns", sa.JSON(), nullable=False, server_default="{}"))
