"""Who used how much of the machine lately is asked of leased runs and of rehearsals apart: the index of runs holds their mode."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("job_by_run", "job")
    op.create_index("job_by_run", "job", ["ran_until", "mode", "spender", "started_at"])
