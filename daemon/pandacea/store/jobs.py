"""Jobs: one row a computation, from the accepted request to what was released of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import JSON, Column, Index, LargeBinary, Text, func, insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.charge import COUNTS, Charge
from pandacea.domain.ids import ComputationId, LeaseKey
from pandacea.domain.job import MOVES, TERMINAL, JobState
from pandacea.store.session import Transaction


class Job(SQLModel, table=True):
    """One computation. Times are Unix seconds; JSON members are as on the wire."""

    __tablename__ = "job"
    __table_args__ = (
        Index("job_by_state", "state", "created_at"),
        Index("job_by_lease", "chain_id", "contract", "lease_id"),
        Index("job_by_idempotency_key", "spender", "idempotency_key"),
    )

    computation_id: str = Field(primary_key=True, max_length=66)
    chain_id: int
    contract: str = Field(max_length=42)
    lease_id: str = Field(max_length=66)
    spender: str = Field(max_length=42)
    request_hash: str = Field(max_length=66)
    idempotency_key: str | None = Field(default=None, max_length=255)
    body_sha256: str = Field(max_length=64)
    mode: str = Field(default="private", max_length=16)
    product_id: str = Field(max_length=64)
    product_version: str = Field(max_length=66)
    code: str = Field(sa_column=Column(Text, nullable=False))
    params: str = Field(sa_column=Column(Text, nullable=False))
    inputs: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    uploads: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    policy_decision: str = Field(max_length=64)
    release: str = Field(default="auto", max_length=16)
    live_output: str = Field(default="none", max_length=16)
    show_messages: bool = True
    max_computations: int
    token_sha256: str | None = Field(default=None, max_length=64)

    state: str = Field(max_length=16)
    charge: str = Field(max_length=16)
    attempt: int = 0
    created_at: float
    queue_deadline: float
    started_at: float | None = None
    finished_at: float | None = None
    failure: str | None = Field(default=None, max_length=32)
    detail: str = Field(default="", sa_column=Column(Text, nullable=False, default=""))
    error: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    output: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False, default=b""))
    truncated: bool = False
    manifest: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    result_hash: str | None = Field(default=None, max_length=66)
    receipt: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    removed_at: float | None = None


class JobArtifact(SQLModel, table=True):
    """One file a computation left; its bytes are the file `file` in the job's results folder."""

    __tablename__ = "job_artifact"

    computation_id: str = Field(primary_key=True, foreign_key="job.computation_id", max_length=66)
    name: str = Field(primary_key=True, max_length=1024)
    file: str = Field(max_length=16)
    size: int
    sha256: str = Field(max_length=64)


_job: Any = SQLModel.metadata.tables["job"]
_artifact: Any = SQLModel.metadata.tables["job_artifact"]


def _of(key: LeaseKey) -> Any:
    return (_job.c.chain_id == key.chain_id) & (_job.c.contract == key.contract) & (_job.c.lease_id == key.lease_id)


async def add(tx: Transaction, values: dict[str, Any]) -> None:
    """Insert a PENDING job: its reservation counts from this commit on."""
    await tx.connection.execute(insert(_job), [values])


async def get(connection: AsyncConnection, computation_id: str) -> RowMapping | None:
    """The whole row, or None."""
    return (await connection.execute(select(_job).where(_job.c.computation_id == computation_id))).mappings().first()


async def by_idempotency_key(connection: AsyncConnection, spender: str, key: str) -> RowMapping | None:
    """The job a spender's earlier request with this key made."""
    query = select(_job).where((_job.c.spender == spender) & (_job.c.idempotency_key == key)).order_by(_job.c.created_at)
    return (await connection.execute(query)).mappings().first()


async def counted(connection: AsyncConnection, key: LeaseKey) -> dict[Charge, int]:
    """How many jobs of a lease stand at each charge (private runs only: a rehearsal costs nothing)."""
    query = select(_job.c.charge, func.count()).where(_of(key)).group_by(_job.c.charge)
    return {Charge(charge): int(count) for charge, count in (await connection.execute(query)).all()}


async def live(connection: AsyncConnection, key: LeaseKey | None = None, spender: str | None = None) -> int:
    """How many jobs have not ended, of a lease, a spender, or in all."""
    query = select(func.count()).where(_job.c.state.in_([JobState.PENDING, JobState.RUNNING, JobState.HELD]))
    if key is not None:
        query = query.where(_of(key))
    if spender is not None:
        query = query.where(_job.c.spender == spender)
    return int((await connection.execute(query)).scalar_one())


async def next_pending(connection: AsyncConnection) -> RowMapping | None:
    """The next job to start: fair between spenders (fewest running first), then the oldest."""
    running = (
        select(_job.c.spender, func.count().label("n")).where(_job.c.state == JobState.RUNNING).group_by(_job.c.spender).subquery()
    )
    query = (
        select(_job)
        .outerjoin(running, running.c.spender == _job.c.spender)
        .where(_job.c.state == JobState.PENDING)
        .order_by(func.coalesce(running.c.n, 0), _job.c.created_at, _job.c.computation_id)
        .limit(1)
    )
    return (await connection.execute(query)).mappings().first()


async def in_state(connection: AsyncConnection, *states: JobState) -> Sequence[RowMapping]:
    """Every job in these states, oldest first."""
    query = select(_job).where(_job.c.state.in_(states)).order_by(_job.c.created_at)
    return (await connection.execute(query)).mappings().all()


async def move(tx: Transaction, computation_id: str, source: JobState, target: JobState, **values: Any) -> bool:
    """Move a job from one state to another, or say False when it is no longer in `source`: two workers cannot both win.

    Raises:
        ValueError: the state table has no such move (a defect of ours).
    """
    if target not in MOVES[source]:
        raise ValueError(f"no move {source} -> {target}")
    here = (_job.c.computation_id == computation_id) & (_job.c.state == source)
    return (await tx.connection.execute(update(_job).where(here).values(state=target, **values))).rowcount == 1


async def mark_charged(tx: Transaction, computation_id: ComputationId) -> None:
    """User code is about to run: from this commit on the run counts, whatever follows."""
    here = (_job.c.computation_id == computation_id) & (_job.c.charge == Charge.RESERVED)
    await tx.connection.execute(update(_job).where(here).values(charge=Charge.CHARGED))


async def add_artifacts(tx: Transaction, rows: list[dict[str, Any]]) -> None:
    """Record what a run left."""
    if rows:
        await tx.connection.execute(insert(_artifact), rows)


async def artifacts(connection: AsyncConnection, computation_id: str) -> Sequence[RowMapping]:
    """A job's artifacts by name."""
    query = select(_artifact).where(_artifact.c.computation_id == computation_id).order_by(_artifact.c.name)
    return (await connection.execute(query)).mappings().all()


async def kept(connection: AsyncConnection, before: float) -> Sequence[RowMapping]:
    """Ended jobs whose results are still kept and ended before a time."""
    ended = _job.c.state.in_(list(TERMINAL)) & _job.c.removed_at.is_(None) & (_job.c.finished_at < before)
    return (await connection.execute(select(_job.c.computation_id).where(ended))).mappings().all()


async def forget_result(tx: Transaction, computation_id: str, now: float) -> None:
    """The bytes are gone; the row, its manifest and its charge stay."""
    gone = update(_job).where(_job.c.computation_id == computation_id).values(output=b"", removed_at=now)
    await tx.connection.execute(gone)


__all__ = ["COUNTS", "Job", "JobArtifact"]
