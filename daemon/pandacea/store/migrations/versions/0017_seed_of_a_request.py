"""A request may carry the seed that its script's random generators start from."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("seed", sa.BigInteger(), nullable=True))
