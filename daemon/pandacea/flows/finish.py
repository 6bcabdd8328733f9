"""The end of a run: state, charge, manifest, receipt, artifacts and messages in one transaction; and that every run gets one.

Whatever stands in the way (a disk, a database, a result that cannot be signed, a node that was killed), no row stays RUNNING.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import structlog

from pandacea.domain.audit_entries import BY_NODE, audit_run_end
from pandacea.domain.charge import FREE_OUTPUT_BYTES, Charge, charge_at_end, count_used
from pandacea.domain.job import Job, JobState, Mode
from pandacea.domain.outcome import Failure, Outcome, not_stored_detail
from pandacea.domain.printable import printable
from pandacea.domain.product import LiveOutput, Release
from pandacea.errors import Unavailable
from pandacea.files.generation import GenerationFile
from pandacea.files.results import ResultStore
from pandacea.flows.cancel import CANCELLED_DETAIL
from pandacea.flows.job_events import CLEARED_RESULT, result_commitment
from pandacea.flows.live_output import JobNotifier
from pandacea.flows.messages import Event, computation_event
from pandacea.flows.outbox import KEEP_DELIVERED_SECONDS
from pandacea.flows.ports import Clock, LeaseCache, SandboxJob
from pandacea.flows.sign_result import ExecutedInputs, ResultSigner
from pandacea.flows.unit_of_work import Database, OutboxMessage, StoredArtifact, UnitOfWork
from pandacea_sdk.protocol.audit import RUN_ENDED
from pandacea_sdk.protocol.json_types import JsonObject

log = structlog.get_logger(__name__)

T = TypeVar("T")

RETRY_SECONDS: Final = (0.5, 1.0, 2.0, 5.0)
"""Pauses between two tries to write an end that the database did not take; the last one repeats."""
FSYNC_SECONDS: Final = 300.0
"""How long a disk may take to make artifacts durable."""
WRITE_SECONDS: Final = 120.0
"""How long one try to write an end may take: a database that hangs is asked again."""
NEVER_HELD: Final = frozenset(
    {Failure.CANCELLED, Failure.LEASE_LOST, Failure.INTERRUPTED, Failure.SANDBOX_FAILED, Failure.DATA_UNREADABLE}
)
"""Ends that the script did not choose: they tell nothing of the data, so the Earner need not look at them."""
SIGNED_CHARGES: Final = frozenset({Charge.CHARGED, Charge.ALLOWANCE})

KILLED_DETAIL: Final = "The node stopped while this was running; nothing of it was kept. Submit it again."
COMMITTED_DETAIL: Final = (
    "The chain shows a result of this computation already, so nothing is signed for it again. Sign a new request."
)
_NOT_SIGNED: Final = "The result could not be signed, so nothing of it was kept; this counts as the script's doing."
_NEVER_SIGNED: Final = (
    "The node could not sign the end of this run, and its log says why; nothing was charged. Try again later, or tell the Earner."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishPorts:
    """What the end of a run is written with."""

    database: Database
    leases: LeaseCache
    signer: ResultSigner
    clock: Clock
    results: ResultStore
    notifier: JobNotifier
    generation_file: GenerationFile


def empty_outcome(failure: Failure, detail: str, *, code_started: bool = False) -> Outcome:
    """Build an outcome without output and artifacts."""
    return Outcome(failure, detail, b"", code_started=code_started)


async def recover_jobs(ports: FinishPorts) -> None:
    """End, before any worker starts, every job that a stopped node left RUNNING, and delete files that belong to no row.

    Its sandbox is gone, and running it again could show two results for one computation. It costs nothing unless something of it left
    already (live output); a cancellation that was asked for is carried out.
    """
    async with ports.database.read_session() as session:
        left = await session.jobs.list_in_state(JobState.RUNNING)
    for computation_id in left:
        async with ports.database.read_session() as session:
            job = await session.jobs.find_job(computation_id)
        if job is not None:
            await end_run(job, empty_outcome(Failure.INTERRUPTED, KILLED_DETAIL), ports)
    if left:
        log.warning("jobs.interrupted", count=len(left))
    await _remove_unknown_results(ports)
    now = ports.clock.now()
    async with ports.database.unit_of_work() as work:
        await work.outbox.prune_messages(now - KEEP_DELIVERED_SECONDS)
        await work.commit()


async def _remove_unknown_results(ports: FinishPorts) -> None:
    """Delete folders without a row that keeps them: of a run that was killed, or of a removal that was."""
    async with ports.database.read_session() as session:
        kept = await session.jobs.list_with_results()
    for name in ports.results.list_unknown(kept):
        await ports.results.remove_folder(name)


async def end_run(job: Job, outcome: Outcome, ports: FinishPorts, sandbox_job: SandboxJob | None = None) -> None:
    """Write the end of a run, with its result if that can be stored and signed, and without it if not.

    Args:
        job: the run's job, RUNNING.
        outcome: how the run ended.
        ports: what the end is written with.
        sandbox_job: what its sandbox was given; None: nothing, or what a node that has died since gave it.
    """
    outcome = await _store_artifacts(job, outcome, ports)
    executed = None
    try:
        if job.mode is Mode.LIVE and sandbox_job is not None:
            executed = ExecutedInputs.from_sandbox_job(sandbox_job)
        await retry_write(job, lambda: finish_run(job, outcome, ports, executed))
    except Exception:
        log.exception("run.not_signed", computation_id=job.computation_id)
        await _end_without_result(job, outcome, ports, executed)


async def _end_without_result(job: Job, outcome: Outcome, ports: FinishPorts, executed: ExecutedInputs | None) -> None:
    """Write an end without result; unsigned and uncharged if even that cannot be signed: then nothing of the script is left in it."""
    started = outcome.code_started or job.charge is Charge.CHARGED
    failure, detail = (Failure.GUEST_DIED, _NOT_SIGNED) if started else (Failure.SANDBOX_FAILED, _NEVER_SIGNED)
    try:
        await retry_write(job, lambda: finish_run(job, empty_outcome(failure, detail, code_started=started), ports, executed))
    except Exception:
        log.exception("run.never_signed", computation_id=job.computation_id)
        await retry_write(job, lambda: finish_run(job, empty_outcome(Failure.SANDBOX_FAILED, _NEVER_SIGNED), ports, signed=False))


async def _store_artifacts(job: Job, outcome: Outcome, ports: FinishPorts) -> Outcome:
    """Make the artifacts durable; return the outcome without them when the disk does not take them."""
    try:
        async with asyncio.timeout(FSYNC_SECONDS):
            await ports.results.make_durable(job.computation_id, [artifact.path.name for artifact in outcome.artifacts])
    except (OSError, TimeoutError) as problem:
        log.exception("result.not_stored", computation_id=job.computation_id)
        return empty_outcome(Failure.SANDBOX_FAILED, not_stored_detail(problem), code_started=outcome.code_started)
    return outcome


async def retry_write(job: Job, write: Callable[[], Awaitable[T]]) -> T:
    """Write what became of a run, however long the database takes: a row left RUNNING would be a job without an end."""
    tries = 0
    while True:
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                return await write()
        except (Unavailable, TimeoutError) as problem:
            pause = RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]
            reason = problem.detail if isinstance(problem, Unavailable) else f"no answer within {WRITE_SECONDS:g} seconds"
            log.warning("result.not_written", computation_id=job.computation_id, reason=reason, retry_seconds=pause)
            tries += 1
            await asyncio.sleep(pause)


async def finish_run(
    job: Job, outcome: Outcome, ports: FinishPorts, executed: ExecutedInputs | None = None, *, signed: bool = True
) -> None:
    """Write, once, the end of a run whose artifacts are durable. Nothing is written when the job is not RUNNING any more.

    Args:
        job: the run's job.
        outcome: how it ended.
        ports: what the end is written with.
        executed: what its sandbox was given; None: a node that has died since knew, so its row must do.
        signed: False for a run that cannot be signed: it is never charged.
    """
    async with ports.database.unit_of_work() as work:
        row = await work.jobs.find_job(job.computation_id)
        if row is None or row.state is not JobState.RUNNING:
            if row is not None:  # ended by somebody else, or by an earlier try of this whose answer was lost
                _notify(job.computation_id, row.state, ports)
            return
        if row.mode is Mode.LIVE and await work.commitments.is_committed(row.lease_key, row.computation_id):
            log.error("result.already_committed", computation_id=row.computation_id, lease_id=row.lease_id)
            outcome, signed = empty_outcome(Failure.INTERRUPTED, COMMITTED_DETAIL), False
        end = await _decide_end(row, outcome, work, ports, executed, signed=signed)
        await work.jobs.change_state(job.computation_id, JobState.RUNNING, end.state, **end.values)
        await work.jobs.insert_artifacts(job.computation_id, end.artifacts)
        if row.mode is Mode.LIVE:
            await work.audit.append_entry(RUN_ENDED, end.values["finished_at"], BY_NODE, audit_run_end(row, end.state, end.values))
        await work.outbox.put_event(end.event, ports.clock.now())
        if end.commitment is not None:
            await work.outbox.put_message(end.commitment, ports.clock.now())
        work.after_commit(lambda: _notify(job.computation_id, end.state, ports))
        await work.commit()
    if not end.artifacts:
        await ports.results.remove_folder(job.computation_id)


@dataclass(frozen=True, slots=True)
class _End:
    """What the transaction of a run's end writes."""

    state: JobState
    values: dict[str, Any]
    """Columns of the job's row."""
    event: Event
    commitment: OutboxMessage | None
    artifacts: list[StoredArtifact]


async def _decide_end(
    row: Job, outcome: Outcome, work: UnitOfWork, ports: FinishPorts, executed: ExecutedInputs | None, *, signed: bool
) -> _End:
    kept = [StoredArtifact(item.name, item.path.name, item.size, item.sha256) for item in outcome.artifacts]
    started = outcome.code_started or row.charge is Charge.CHARGED
    if row.cancel_asked:
        # The answer to the cancellation said so: a result that came meanwhile is not kept.
        outcome, kept = empty_outcome(Failure.CANCELLED, CANCELLED_DETAIL, code_started=started), []
    now = ports.clock.now()
    state = _state_at_end(row, outcome, started=started)
    counts = await work.jobs.count_by_charge(row.lease_key)
    charge = _charge_at_end(row, outcome, state, started=started, failed_runs=counts.get(Charge.ALLOWANCE, 0))
    if not signed:
        charge = row.charge_for_mode(Charge.RETURNED)
    elif row.mode is Mode.LIVE and _is_free_failure(row, outcome, counts, started=started):
        if _has_shown_more(row, outcome, ports):
            charge = row.charge_for_mode(Charge.CHARGED)
        else:
            outcome, kept = reduce_failed_run(outcome), []
    if row.mode is Mode.LIVE and charge is Charge.RETURNED:
        # What costs nothing gives nothing: an engine, or a disk that a script helped to fill, may fail after the output came.
        outcome, kept = replace(outcome, output=b"", artifacts=(), script_error=None, truncated=False), []
    values: dict[str, Any] = {
        "charge": charge,
        "finished_at": now,
        "failure": outcome.failure,
        "detail": public_detail(outcome),
        "error": _public_error(row, outcome),
        "output": outcome.output,
        "truncated": outcome.truncated,
        "stored_bytes": len(outcome.output) + sum(item.size for item in outcome.artifacts),
    }
    event, commitment = computation_event(replace(row, state=state), outcome.failure), None
    if state is JobState.CANCELLED and row.release == Release.HOLD:
        values |= CLEARED_RESULT | {"removed_at": now}  # as one that was cancelled after its run: the two must not differ
    elif charge in SIGNED_CHARGES:
        lease = ports.leases.find_lease(row.lease_id)
        used = count_used(counts, lease.committed_count if lease else 0)
        index = min(used if row.charge is Charge.CHARGED else used + 1, row.max_computations)
        _, head = await work.audit.find_head()
        result = ports.signer.sign_result(
            row, executed or ExecutedInputs.from_job(row), outcome, index=index, finished_at=now, audit_head=head
        )
        values |= {"manifest": result.manifest, "result_hash": result.result_hash, "receipt": result.receipt}
        # A lost lease takes no commitment; a held result is committed when it is released, or never.
        if charge is Charge.CHARGED and state is not JobState.HELD and outcome.failure != Failure.LEASE_LOST:
            commitment = result_commitment(row, result.result_hash)
    return _End(state, values, event, commitment, kept)


def _is_free_failure(row: Job, outcome: Outcome, counts: Mapping[Charge, int], *, started: bool) -> bool:
    """Whether the allowance of failed runs pays for this one, now or when it is released."""
    failed_runs = counts.get(Charge.ALLOWANCE, 0)
    charge = charge_at_end(outcome.failure, code_started=started, released=row.live_at is not None, failed_runs=failed_runs)
    return charge is Charge.ALLOWANCE


def _has_shown_more(row: Job, outcome: Outcome, ports: FinishPorts) -> bool:
    """Whether more of a run was streamed while it ran than the allowance gives: then it is charged, and keeps what it left."""
    if row.live_at is None or row.effective_live_output is not LiveOutput.FULL:
        return False
    feed = ports.notifier.find_feed(row.computation_id)
    return len(outcome.output) > FREE_OUTPUT_BYTES or (feed is not None and feed.reports > 0)


def reduce_failed_run(outcome: Outcome) -> Outcome:
    """Return of a run what the allowance of failed runs gives: class, line, message, and the end of the output; no artifacts."""
    raised = outcome.script_error
    if raised is not None:
        raised = replace(raised, message=raised.message[:FREE_OUTPUT_BYTES])
    cut = len(outcome.output) > FREE_OUTPUT_BYTES
    return replace(
        outcome,
        script_error=raised,
        output=outcome.output[-FREE_OUTPUT_BYTES:],
        truncated=outcome.truncated or cut,
        artifacts=(),
    )


def _state_at_end(row: Job, outcome: Outcome, *, started: bool) -> JobState:
    if outcome.failure is Failure.CANCELLED:
        return JobState.CANCELLED
    if row.release == Release.HOLD and started and outcome.failure not in NEVER_HELD:
        return JobState.HELD
    return JobState.COMPLETED if outcome.failure is None else JobState.FAILED


def _charge_at_end(row: Job, outcome: Outcome, state: JobState, *, started: bool, failed_runs: int) -> Charge:
    if state is JobState.HELD:
        # Whether the allowance pays would tell how the script ended; that is decided when the result is released.
        return row.charge_for_mode(Charge.CHARGED)
    released = row.live_at is not None
    return row.charge_for_mode(charge_at_end(outcome.failure, code_started=started, released=released, failed_runs=failed_runs))


def _notify(computation_id: str, state: JobState, ports: FinishPorts) -> None:
    ports.notifier.close_feed(computation_id)
    if state is not JobState.HELD:  # whoever waits must not learn that the run of a held result is over
        ports.notifier.notify(computation_id)


def _public_error(row: Job, outcome: Outcome) -> JsonObject | None:
    if outcome.failure is None:
        return None
    error: JsonObject = {"type": outcome.failure.value, "message": public_detail(outcome)}
    if outcome.script_error is not None:
        error |= {"exception": printable(outcome.script_error.type, limit=100), "line": outcome.script_error.line}
        if row.show_messages:
            error["exception_message"] = outcome.script_error.message
    return error


def public_detail(outcome: Outcome) -> str:
    """Return one sentence for the Spender; never the exception's own message, nor a parser's, which may quote a row."""
    if outcome.failure is Failure.DATA_UNREADABLE:
        return "An asset of the product cannot be read as a table on the node; nothing was charged. Tell the Earner."
    raised = outcome.script_error
    if raised is None:
        return outcome.detail
    where = "" if raised.line is None else f" in line {raised.line}"
    return f"The script raised {printable(raised.type, limit=100)}{where}."
