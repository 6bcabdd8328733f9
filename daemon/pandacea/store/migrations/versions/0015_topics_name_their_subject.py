"""Topics name their computation or lease; what waits for the broker gets its new topic and form, under an id that stays the same."""

import hashlib
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_OUTBOX = sa.table(
    "outbox",
    *(sa.column(name) for name in ("id", "channel", "key", "topic", "created_at", "done_at")),
    sa.column("payload", sa.JSON()),
)


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":  # SQLite holds no text to its length
        op.alter_column("outbox", "topic", existing_type=sa.String(64), type_=sa.String(160), existing_nullable=False)
    waiting = sa.select(_OUTBOX).where((_OUTBOX.c.channel == "mqtt") & _OUTBOX.c.done_at.is_(None))
    for row in connection.execute(waiting).mappings().all():
        subject, _, name = row["topic"].partition("/")
        data = _read_data(row["payload"])
        subject_id = data.get("computation_id" if subject == "computations" else "lease_id")
        change = sa.delete(_OUTBOX)  # a topic of nobody's: nothing to tell
        if subject in {"computations", "leases"} and isinstance(subject_id, str):
            payload = {
                "id": f"evt_{hashlib.sha256(row['key'].removeprefix('mqtt:').encode()).hexdigest()[:32]}",
                "type": f"{subject}.{name}",
                "timestamp": _format_time(row["created_at"]),
                "data": data,
            }
            change = sa.update(_OUTBOX).values(topic=f"{subject}/{subject_id}/{name}", payload=payload)
        connection.execute(change.where(_OUTBOX.c.id == row["id"]))


def _read_data(payload: dict) -> dict:  # type: ignore[type-arg]  # as an earlier version wrote it
    data = {key: value for key, value in payload.items() if value is not None}
    arguments = data.get("arguments")
    if isinstance(arguments, dict):
        data["lease_id"] = arguments.get("lease_id")
        data["arguments"] = {key: value for key, value in arguments.items() if key != "reason"}
    return data


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
