"""how an asset version was made: what its source was, and in which state."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("asset_version") as table:
        table.add_column(sa.Column("recipe", sa.String(length=64), nullable=True))
        table.add_column(sa.Column("stamp", sa.Text(), nullable=True))
        table.create_index("ix_asset_version_recipe", ["recipe"])
