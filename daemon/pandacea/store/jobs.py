"""Jobs: a row for each computation, from the accepted request to the released result."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Index,
    LargeBinary,
    Select,
    Text,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    union_all,
    update,
)
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.charge import Charge
from pandacea.domain.ids import Address, ComputationId, LeaseKey
from pandacea.domain.job import JOB_TRANSITIONS, TERMINAL, Job, JobState, Mode
from pandacea.domain.outcome import Failure
from pandacea.domain.product import Release
from pandacea.flows.unit_of_work import HeldRow, StartCriteria, StoredArtifact, StoredResult, UnseenRuns
from pandacea.store.bulk import IN_LIST_SIZE, split_chunks
from pandacea_sdk.protocol.json_types import JsonObject


class JobRow(SQLModel, table=True):
    """The columns of `domain.job.Job`."""

    __tablename__ = "job"
    __table_args__ = (
        Index("job_by_state", "state", "created_at"),
        Index("job_by_lease", "chain_id", "contract", "lease_id"),
        Index("job_by_spender", "spender", "state"),
        Index("job_by_idempotency_key", "spender", "lease_id", "idempotency_key"),
        # These indexes hold every column that their queries read: a row itself is as long as its script.
        Index("job_by_run", "ran_until", "mode", "spender", "started_at"),
        Index("job_by_result", "removed_at", "mode", "spender", "stored_bytes"),
        Index("job_by_charge", "charge", "finished_at"),
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
    inputs: list[JsonObject] = Field(sa_column=Column(JSON, nullable=False))
    uploads: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    policy_decision: str = Field(max_length=128)
    release: str = Field(max_length=16)
    live_output: str = Field(max_length=16)
    show_messages: bool
    max_computations: int = Field(sa_type=BigInteger)
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
    error: JsonObject | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    output: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    truncated: bool
    manifest: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    result_hash: str | None = Field(default=None, max_length=66)
    receipt: JsonObject | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    removed_at: float | None = None
    live_at: float | None = None
    cancel_asked: bool
    stored_bytes: int = Field(sa_type=BigInteger)
    seed: int | None = Field(default=None, sa_type=BigInteger)
    ran_until: float | None = None
    """When its run ended, in Unix seconds; unlike `finished_at` it does not change when the Earner decides on a held result."""


class JobArtifactRow(SQLModel, table=True):
    """One artifact of a computation; its bytes are the file `file` in the job's results folder."""

    __tablename__ = "job_artifact"

    computation_id: str = Field(primary_key=True, foreign_key="job.computation_id", max_length=66)
    name: str = Field(primary_key=True, max_length=1024)
    file: str = Field(max_length=16)
    size: int = Field(sa_type=BigInteger)
    sha256: str = Field(max_length=64)


_job: Final = SQLModel.metadata.tables["job"]
_artifact: Final = SQLModel.metadata.tables["job_artifact"]
_QUEUED = (JobState.PENDING, JobState.RUNNING)
FAIRNESS_SECONDS = 3600.0
"""How many seconds back a Spender's run time counts when the next job is chosen."""


_RESULT_COLUMNS = frozenset(
    {"output", "truncated", "manifest", "result_hash", "receipt", "removed_at", "live_at", "cancel_asked", "stored_bytes", "seed"}
)
"""Columns of a result, and those stored behind them in a row: to read one of them is to read through the whole output."""
_COLUMNS_BEFORE_RESULT = [_job.c[field.name] for field in fields(Job) if field.name not in _RESULT_COLUMNS]


def _read(row: RowMapping) -> Job:
    values: dict[str, Any] = {field.name: row[field.name] for field in fields(Job) if field.name in row}
    failure = values["failure"]
    values |= {
        "state": JobState(row["state"]),
        "charge": Charge(row["charge"]),
        "mode": Mode(row["mode"]),
        "failure": None if failure is None else Failure(failure),
        "output": bytes(row.get("output", b"")),
    }
    return Job(**values)


def _signs_or_charges(values: Mapping[str, object]) -> bool:
    signs = any(values.get(name) is not None for name in ("manifest", "receipt", "result_hash"))
    return signs or values.get("charge", Charge.FREE) != Charge.FREE


def _ended(mode: Mode) -> ColumnElement[bool]:
    return _job.c.state.in_(list(TERMINAL)) & (_job.c.mode == mode)


def _of(key: LeaseKey) -> ColumnElement[bool]:
    return (_job.c.chain_id == key.chain_id) & (_job.c.contract == key.contract) & (_job.c.lease_id == key.lease_id)


class JobTable:
    """The job rows as one connection sees them."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Reads may use any connection; writes need the transaction's."""
        self._connection = connection

    async def insert_job(self, job: Job) -> None:
        """Insert a PENDING job: its reservation counts from this commit on."""
        await self._connection.execute(insert(_job), [asdict(job)])

    async def find_job(self, computation_id: str) -> Job | None:
        """Return a job, or None."""
        return await self._first(select(_job).where(_job.c.computation_id == computation_id))

    async def find_visible_job(self, computation_id: str) -> Job | None:
        """Return a job for its Spender, or None; a held one without its result.

        The result is not even read: how long that took would tell that it exists, and how large it is.
        """
        here = _job.c.computation_id == computation_id
        state = (await self._connection.execute(select(_job.c.state).where(here))).scalar_one_or_none()
        if state != JobState.HELD:
            return None if state is None else await self.find_job(computation_id)
        found = await self._first(select(*_COLUMNS_BEFORE_RESULT).where(here))
        # When it was released between the two reads, its result is visible.
        return found if found is None or found.state is JobState.HELD else await self.find_job(computation_id)

    async def find_token_hash(self, computation_id: str) -> str | None:
        """Return the sha-256 of a job's token, or None; without the rest of its row, which may take megabytes."""
        query = select(_job.c.token_sha256).where(_job.c.computation_id == computation_id)
        found: str | None = (await self._connection.execute(query)).scalar_one_or_none()
        return found

    async def find_by_idempotency_key(self, spender: Address, lease: LeaseKey, key: str) -> Job | None:
        """Return the job that a Spender's earlier request with this idempotency key made under this lease, or None."""
        mine = (_job.c.spender == spender) & (_job.c.idempotency_key == key) & _of(lease)
        query = select(_job.c.computation_id).where(mine).order_by(_job.c.created_at).limit(1)
        found = (await self._connection.execute(query)).scalar_one_or_none()
        return None if found is None else await self.find_visible_job(found)

    async def count_by_charge(self, key: LeaseKey) -> dict[Charge, int]:
        """Count the jobs of a lease by charge."""
        query = select(_job.c.charge, func.count()).where(_of(key)).group_by(_job.c.charge)
        return {Charge(charge): int(count) for charge, count in (await self._connection.execute(query)).all()}

    async def count_queued(self, spender: Address | None = None) -> int:
        """Count the jobs that wait or run: of a Spender, or of all Spenders."""
        query = select(func.count()).where(_job.c.state.in_(_QUEUED))
        if spender is not None:
            query = query.where(_job.c.spender == spender)
        return int((await self._connection.execute(query)).scalar_one())

    async def count_unseen(self, since: float) -> dict[Address, UnseenRuns]:
        """Count the runs of which Spenders may see something else than the rows say, by Spender.

        A held run that started after `since` reads as running. One that was cancelled reads as cancelled, though it may still run.
        """
        # `ran_until` is for the index: of all held results only those of recent runs are read.
        held = (_job.c.ran_until > since) & (_job.c.started_at > since) & (_job.c.state == JobState.HELD)
        cancelled = (_job.c.state == JobState.RUNNING) & _job.c.cancel_asked & (_job.c.release == Release.HOLD)
        runs = select(_job.c.spender, literal(1).label("runs"), _job.c.stored_bytes.label("size")).where(held)
        over = select(_job.c.spender, literal(-1).label("runs"), literal(0).label("size")).where(cancelled)
        each = union_all(runs, over).subquery()
        query = select(each.c.spender, func.sum(each.c.runs), func.sum(each.c.size)).group_by(each.c.spender)
        return {Address(row[0]): UnseenRuns(int(row[1]), int(row[2])) for row in (await self._connection.execute(query)).all()}

    async def find_next_pending(self, criteria: StartCriteria) -> Job | None:
        """Return the job to start next: rehearsals last, then fair between Spenders by number and by time, then the oldest.

        A Spender with fewer running jobs comes first and, of those with equally many, the one whose runs took least of the last hour.
        A job whose queue deadline has passed is returned whatever its Spender has running, so that it is ended. Runs of other modes than
        those asked for do not count: a rehearsal that waited for a held run would tell when that ended.
        """
        since = criteria.now - FAIRNESS_SECONDS
        mine = _job.c.mode.in_(list(criteria.modes))
        began = case((_job.c.started_at < since, since), else_=_job.c.started_at)
        runs = select(_job.c.spender, literal(1).label("running"), (criteria.now - began).label("seconds"))
        ran = select(_job.c.spender, literal(0).label("running"), (_job.c.ran_until - began).label("seconds"))
        each = union_all(
            runs.where(mine & (_job.c.state == JobState.RUNNING)), ran.where(mine & (_job.c.ran_until > since))
        ).subquery()
        sums = select(each.c.spender, func.sum(each.c.running).label("running"), func.sum(each.c.seconds).label("seconds"))
        spent = sums.group_by(each.c.spender).subquery()
        running, seconds = func.coalesce(spent.c.running, 0), func.coalesce(spent.c.seconds, 0.0)
        mock = _job.c.mode == Mode.MOCK
        may_start = (running < criteria.max_running) & (mock | _job.c.spender.not_in(list(criteria.full_spenders)))
        waits = (_job.c.state == JobState.PENDING) & _job.c.lease_id.not_in(list(criteria.skipped_leases)) & mine
        query = (
            select(_job.c.computation_id)
            .outerjoin(spent, spent.c.spender == _job.c.spender)
            .where(waits & (may_start | (_job.c.queue_deadline < criteria.now)))
            .order_by(mock, running, seconds, _job.c.created_at, _job.c.computation_id)
            .limit(1)
        )
        # The whole row is read of the chosen job alone: the scripts of a full queue are a hundred megabytes.
        found = (await self._connection.execute(query)).scalar_one_or_none()
        return None if found is None else await self.find_job(found)

    async def list_in_state(self, *states: JobState) -> list[ComputationId]:
        """List the ids of the jobs in these states, oldest first."""
        query = select(_job.c.computation_id).where(_job.c.state.in_(states)).order_by(_job.c.created_at)
        return [ComputationId(row[0]) for row in (await self._connection.execute(query)).all()]

    async def list_held(self) -> list[HeldRow]:
        """List the held results, oldest first, without what makes their rows long."""
        columns = [_job.c[field.name] for field in fields(HeldRow)]
        query = select(*columns).where(_job.c.state == JobState.HELD).order_by(_job.c.created_at)
        rows = (await self._connection.execute(query)).mappings().all()
        return [
            HeldRow(
                **{**row, "state": JobState(row["state"]), "failure": None if row["failure"] is None else Failure(row["failure"])}
            )
            for row in rows
        ]

    async def change_state(self, computation_id: str, source: JobState, target: JobState, **values: object) -> bool:
        """Change the state of a job; False when it is not in `source` any more, so that of two workers one succeeds.

        Raises:
            ValueError: the state table has no such transition, or a rehearsal would be charged or signed (a defect of this program).
        """
        if target not in JOB_TRANSITIONS[source]:
            raise ValueError(f"no move {source} -> {target}")
        if source is JobState.RUNNING and target is not JobState.PENDING:
            values = {"ran_until": values.get("finished_at"), **values}
        here = (_job.c.computation_id == computation_id) & (_job.c.state == source)
        if _signs_or_charges(values):
            mode = (await self._connection.execute(select(_job.c.mode).where(here))).scalar_one_or_none()
            if mode == Mode.MOCK:
                raise ValueError(f"the rehearsal {computation_id} would be charged or signed: {values.get('charge')}")
        moved = await self._connection.execute(update(_job).where(here).values(state=target, **values))
        return bool(moved.rowcount == 1)

    async def mark_charged(self, computation_id: str) -> None:
        """Charge a job whose user code starts; from this commit on the run counts, whatever follows."""
        here = (_job.c.computation_id == computation_id) & (_job.c.charge == Charge.RESERVED)
        await self._connection.execute(update(_job).where(here).values(charge=Charge.CHARGED))

    async def mark_shown(self, computation_id: str, now: float) -> bool:
        """Charge a run for good because output leaves the node before its end; False when the job does not run (any more)."""
        here = (_job.c.computation_id == computation_id) & (_job.c.state == JobState.RUNNING)
        charge = case((_job.c.charge == Charge.RESERVED, Charge.CHARGED.value), else_=_job.c.charge)
        shown = update(_job).where(here).values(live_at=func.coalesce(_job.c.live_at, now), charge=charge)
        return bool((await self._connection.execute(shown)).rowcount == 1)

    async def request_cancel(self, computation_id: str) -> None:
        """Request a cancellation: however the run ends, the job becomes CANCELLED."""
        await self._connection.execute(update(_job).where(_job.c.computation_id == computation_id).values(cancel_asked=True))

    async def update_token(self, computation_id: str, token_sha256: str) -> None:
        """Replace the job token; the one before is not accepted any more."""
        here = _job.c.computation_id == computation_id
        await self._connection.execute(update(_job).where(here).values(token_sha256=token_sha256))

    async def insert_artifacts(self, computation_id: str, artifacts: Sequence[StoredArtifact]) -> None:
        """Insert the artifacts of a run."""
        if artifacts:
            await self._connection.execute(insert(_artifact), [{"computation_id": computation_id, **asdict(a)} for a in artifacts])

    async def list_artifacts(self, computation_id: str) -> list[StoredArtifact]:
        """List a job's artifacts by name."""
        query = select(_artifact).where(_artifact.c.computation_id == computation_id).order_by(_artifact.c.name)
        rows = (await self._connection.execute(query)).mappings().all()
        return [StoredArtifact(row["name"], row["file"], row["size"], row["sha256"]) for row in rows]

    async def delete_artifacts(self, computation_id: str) -> None:
        """Delete the rows of a job's artifacts."""
        await self._connection.execute(delete(_artifact).where(_artifact.c.computation_id == computation_id))

    async def stored_bytes(self, mode: Mode) -> dict[Address, int]:
        """Sum the bytes of stored results by Spender, held ones included: of leased runs, or of rehearsals."""
        kept = _job.c.removed_at.is_(None) & (_job.c.mode == mode) & (_job.c.stored_bytes > 0)
        query = select(_job.c.spender, func.sum(_job.c.stored_bytes)).where(kept).group_by(_job.c.spender)
        return {Address(spender): int(size) for spender, size in (await self._connection.execute(query)).all()}

    async def count_running(self) -> dict[Address, int]:
        """Count the running leased jobs by Spender."""
        here = (_job.c.state == JobState.RUNNING) & (_job.c.mode == Mode.LIVE)
        query = select(_job.c.spender, func.count()).where(here).group_by(_job.c.spender)
        return {Address(spender): int(count) for spender, count in (await self._connection.execute(query)).all()}

    async def list_with_results(self) -> set[str]:
        """List the ids of ended jobs whose artifacts are stored."""
        kept = (_job.c.computation_id == _artifact.c.computation_id) & _job.c.removed_at.is_(None)
        query = select(_job.c.computation_id).where(kept & _job.c.state.not_in(_QUEUED)).distinct()
        return {row[0] for row in (await self._connection.execute(query)).all()}

    async def list_oldest_results(self, mode: Mode, before: float) -> list[StoredResult]:
        """List ended jobs with stored results that ended before a time (Unix seconds), oldest first."""
        ended = _ended(mode) & _job.c.removed_at.is_(None) & (_job.c.finished_at < before) & (_job.c.stored_bytes > 0)
        query = select(_job.c.computation_id, _job.c.spender, _job.c.stored_bytes).where(ended)
        rows = (await self._connection.execute(query.order_by(_job.c.finished_at, _job.c.computation_id))).all()
        return [StoredResult(ComputationId(row[0]), Address(row[1]), int(row[2])) for row in rows]

    async def list_needed_uploads(self) -> set[tuple[str, str]]:
        """List (spender, sha-256) of every upload that a waiting or running job needs."""
        query = select(_job.c.spender, _job.c.uploads).where(_job.c.state.in_(_QUEUED))
        rows = (await self._connection.execute(query)).all()
        return {(spender, digest) for spender, uploads in rows for digest in uploads.values()}

    async def list_ended_before(self, mode: Mode, time: float) -> list[ComputationId]:
        """List ended jobs whose results are still stored and that ended before a time (Unix seconds)."""
        ended = _ended(mode) & _job.c.removed_at.is_(None) & (_job.c.finished_at < time)
        return [row[0] for row in (await self._connection.execute(select(_job.c.computation_id).where(ended))).all()]

    async def list_uncharged(self, before: float, keep_each: int) -> list[ComputationId]:
        """Ended jobs that cost nothing and may go: runs given back that ended before a time, and all but a Spender's newest `each`.

        Rehearsals, which go by a time of their own, are counted apart.
        """
        place = func.row_number().over(partition_by=(_job.c.spender, _job.c.mode), order_by=_job.c.finished_at.desc())
        free = _job.c.charge.in_([Charge.FREE, Charge.RETURNED]) & _job.c.state.in_(list(TERMINAL))
        rows = select(_job.c.computation_id, _job.c.mode, _job.c.finished_at, place.label("place")).where(free).subquery()
        returned = (rows.c.mode == Mode.LIVE) & (rows.c.finished_at < before)
        query = select(rows.c.computation_id).where(returned | (rows.c.place > keep_each))
        return [ComputationId(row[0]) for row in (await self._connection.execute(query)).all()]

    async def delete_jobs(self, computation_ids: Collection[ComputationId]) -> None:
        """Delete jobs whole; only such as do not count for any lease."""
        for chunk in split_chunks(list(computation_ids), IN_LIST_SIZE):
            await self._connection.execute(delete(_artifact).where(_artifact.c.computation_id.in_(chunk)))
            await self._connection.execute(delete(_job).where(_job.c.computation_id.in_(chunk)))

    async def clear_scripts(self, before: float) -> int:
        """Empty script and params of charged jobs that ended before a time, and of those that cost nothing; returns how many."""
        paid = _job.c.charge.in_([Charge.CHARGED, Charge.ALLOWANCE]) & (_job.c.finished_at < before)
        given_back = (_job.c.charge == Charge.RETURNED) & _job.c.finished_at.is_not(None)
        emptied = 0
        for due in (paid, given_back):
            old = due & _job.c.state.in_(list(TERMINAL)) & (_job.c.code != "")
            emptied += int((await self._connection.execute(update(_job).where(old).values(code="", params="{}"))).rowcount)
        return emptied

    async def clear_result(self, computation_id: str, now: float) -> None:
        """Empty the output of a job whose result was removed at `now`; the row, its manifest and its charge stay."""
        gone = update(_job).where(_job.c.computation_id == computation_id).values(output=b"", removed_at=now, stored_bytes=0)
        await self._connection.execute(gone)

    async def _first(self, query: Select[Any]) -> Job | None:
        row = (await self._connection.execute(query)).mappings().first()
        return None if row is None else _read(row)
