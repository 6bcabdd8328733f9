"""What each mined transaction cost is kept, for the Earner's books; of earlier ones only the cap is known."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sent_transaction", sa.Column("paid", sa.String(78), nullable=True))
