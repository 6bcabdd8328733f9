"""When a run's box was done with: who used how much of the machine lately, and what may be removed."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("job") as table:
        table.add_column(sa.Column("ran_until", sa.Float(), nullable=True))
        table.create_index("job_by_run", ["ran_until", "spender", "started_at"])
        table.create_index("job_by_result", ["removed_at", "mode", "spender", "stored_bytes"])
        table.create_index("job_by_charge", ["charge", "finished_at"])
