"""Results that were released while nothing was committed wait for their commitment: until now each ended with the release."""

import time

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_JOBS = """
SELECT computation_id, lease_id, result_hash FROM job
WHERE charge = 'charged' AND result_hash IS NOT NULL AND state IN ('completed', 'failed')
AND (failure IS NULL OR failure NOT IN ('lease-lost', 'result-refused'))
AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.key = 'commit:' || job.computation_id)
"""


def upgrade() -> None:
    connection = op.get_bind()
    outbox = sa.table(
        "outbox",
        *(sa.column(name) for name in ("channel", "key", "topic", "created_at", "next_at", "attempts")),
        sa.column("payload", sa.JSON()),
    )
    now = time.time()
    rows = [
        {
            "channel": "chain",
            "key": f"commit:{computation}",
            "topic": "commitResult",
            "payload": {"lease_id": lease, "computation_id": computation, "result_hash": result},
            "created_at": now,
            "next_at": now,
            "attempts": 0,
        }
        for computation, lease, result in connection.execute(sa.text(_JOBS)).all()
    ]
    if rows:
        connection.execute(sa.insert(outbox), rows)
