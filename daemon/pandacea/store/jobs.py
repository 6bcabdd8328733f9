"""Jobs: one row a computation, from the accepted request to what was released of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, LargeBinary, Text, func, insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.charge import Charge
from pandacea.domain.ids import Address, ComputationId, LeaseKey
from pandacea.domain.job import MOVES, TERMINAL, Job, JobState, Mode
from pandacea.domain.outcome import Failure
from pandacea.flows.ports import KeptArtifact


class JobRow(SQLModel, table=True):
    """The columns of `domain.job.Job`."""

    __tablename__ = "job"
    __table_args__ = (
        Index("job_by_state", "state", "created_at"),
        Index("job_by_lease", "chain_id", "contract", "lease_id"),
        Index("job_by_idempotency_key", "spender", "idempotency_key"),
    )

    computation_id: str = Field(primary_key=True, max_length=66)
    chain_id: int = Field(sa_type=BigInteger)
    contract: str = Field(max_length=42)
    lease_id: str = Field(max_length=66)
    spender: str = Field(max_length=42)
    request_hash: str = Field(max_length=66)
    body_sha256: str = Field(max_length=64)
    mode: str = Field(max_length=16)
    product_id: str = Field(max_length=64)
    product_version: str = Field(max_length=66)
    code: str = Field(sa_column=Column(Text, nullable=False))
    params: str = Field(sa_column=Column(Text, nullable=False))
    inputs: list[dict[str, Any]] = Field(sa_column=Column(JSON, nullable=False))
    uploads: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    policy_decision: str = Field(max_length=64)
    release: str = Field(max_length=16)
    live_output: str = Field(max_length=16)
    show_messages: bool
    max_computations: int
    created_at: float
    queue_deadline: float
    state: str = Field(max_length=16)
    charge: str = Field(max_length=16)
    idempotency_key: str | None = Field(default=None, max_length=255)
    token_sha256: str | None = Field(default=None, max_length=64)
    attempt: int
    started_at: float | None = None
    finished_at: float | None = None
    failure: str | None = Field(default=None, max_length=32)
    detail: str = Field(sa_column=Column(Text, nullable=False))
    error: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    output: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    truncated: bool
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
    size: int = Field(sa_type=BigInteger)
    sha256: str = Field(max_length=64)


_job: Any = SQLModel.metadata.tables["job"]
_artifact: Any = SQLModel.metadata.tables["job_artifact"]
_LIVE = (JobState.PENDING, JobState.RUNNING, JobState.HELD)


def _read(row: RowMapping) -> Job:
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(Job)}
    failure = values["failure"]
    values |= {
        "state": JobState(row["state"]),
        "charge": Charge(row["charge"]),
        "mode": Mode(row["mode"]),
        "failure": None if failure is None else Failure(failure),
        "output": bytes(row["output"]),
    }
    return Job(**values)


def _of(key: LeaseKey) -> Any:
    return (_job.c.chain_id == key.chain_id) & (_job.c.contract == key.contract) & (_job.c.lease_id == key.lease_id)


class Jobs:
    """The job rows as one connection sees them."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Reads may use any connection; writes the transaction's."""
        self._connection = connection

    async def add(self, job: Job) -> None:
        """Insert a PENDING job: its reservation counts from this commit on."""
        await self._connection.execute(insert(_job), [asdict(job)])

    async def get(self, computation_id: str) -> Job | None:
        """The whole row, or None."""
        return await self._first(select(_job).where(_job.c.computation_id == computation_id))

    async def by_idempotency_key(self, spender: Address, key: str) -> Job | None:
        """The job a spender's earlier request with this key made."""
        mine = (_job.c.spender == spender) & (_job.c.idempotency_key == key)
        return await self._first(select(_job).where(mine).order_by(_job.c.created_at).limit(1))

    async def counted(self, key: LeaseKey) -> dict[Charge, int]:
        """How many jobs of a lease stand at each charge."""
        query = select(_job.c.charge, func.count()).where(_of(key)).group_by(_job.c.charge)
        return {Charge(charge): int(count) for charge, count in (await self._connection.execute(query)).all()}

    async def live(self, *, key: LeaseKey | None = None, spender: Address | None = None) -> int:
        """How many jobs have not ended: of a lease, of a spender, or in all."""
        query = select(func.count()).where(_job.c.state.in_(_LIVE))
        if key is not None:
            query = query.where(_of(key))
        if spender is not None:
            query = query.where(_job.c.spender == spender)
        return int((await self._connection.execute(query)).scalar_one())

    async def next_pending(self) -> Job | None:
        """The next job to start: fair between spenders (fewest running first), then the oldest."""
        count = func.count().label("running")
        running = select(_job.c.spender, count).where(_job.c.state == JobState.RUNNING).group_by(_job.c.spender).subquery()
        query = (
            select(_job)
            .outerjoin(running, running.c.spender == _job.c.spender)
            .where(_job.c.state == JobState.PENDING)
            .order_by(func.coalesce(running.c.running, 0), _job.c.created_at, _job.c.computation_id)
            .limit(1)
        )
        return await self._first(query)

    async def in_state(self, *states: JobState) -> list[Job]:
        """Every job in these states, oldest first."""
        query = select(_job).where(_job.c.state.in_(states)).order_by(_job.c.created_at)
        return [_read(row) for row in (await self._connection.execute(query)).mappings().all()]

    async def move(self, computation_id: str, source: JobState, target: JobState, **values: Any) -> bool:
        """Move a job on, or say False when it is no longer in `source`: two workers cannot both win.

        Raises:
            ValueError: the state table has no such move (a defect of ours).
        """
        if target not in MOVES[source]:
            raise ValueError(f"no move {source} -> {target}")
        here = (_job.c.computation_id == computation_id) & (_job.c.state == source)
        moved = await self._connection.execute(update(_job).where(here).values(state=target, **values))
        return bool(moved.rowcount == 1)

    async def charge(self, computation_id: str) -> None:
        """User code starts: from this commit on the run counts, whatever follows."""
        here = (_job.c.computation_id == computation_id) & (_job.c.charge == Charge.RESERVED)
        await self._connection.execute(update(_job).where(here).values(charge=Charge.CHARGED))

    async def add_artifacts(self, computation_id: str, artifacts: Sequence[KeptArtifact]) -> None:
        """Record what a run left."""
        if artifacts:
            await self._connection.execute(insert(_artifact), [{"computation_id": computation_id, **asdict(a)} for a in artifacts])

    async def artifacts(self, computation_id: str) -> list[KeptArtifact]:
        """A job's artifacts by name."""
        query = select(_artifact).where(_artifact.c.computation_id == computation_id).order_by(_artifact.c.name)
        rows = (await self._connection.execute(query)).mappings().all()
        return [KeptArtifact(row["name"], row["file"], row["size"], row["sha256"]) for row in rows]

    async def ended_before(self, time: float) -> list[ComputationId]:
        """Ended jobs whose results are still kept and ended before a time."""
        ended = _job.c.state.in_(list(TERMINAL)) & _job.c.removed_at.is_(None) & (_job.c.finished_at < time)
        return [row[0] for row in (await self._connection.execute(select(_job.c.computation_id).where(ended))).all()]

    async def forget_result(self, computation_id: str, now: float) -> None:
        """The bytes are gone; the row, its manifest and its charge stay."""
        gone = update(_job).where(_job.c.computation_id == computation_id).values(output=b"", removed_at=now)
        await self._connection.execute(gone)

    async def _first(self, query: Any) -> Job | None:
        row = (await self._connection.execute(query)).mappings().first()
        return None if row is None else _read(row)
