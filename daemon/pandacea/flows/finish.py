"""The end of a run: state, charge, manifest, receipt, artifacts and what the world is to be told, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from pandacea.domain.charge import Charge, at_end, used
from pandacea.domain.job import Job, JobState
from pandacea.domain.outcome import Failure, Outcome
from pandacea.domain.printable import printable
from pandacea.domain.product import Release
from pandacea.flows.books import Channel, KeptArtifact, Message, Work
from pandacea.flows.seal import Executed
from pandacea.flows.submit import job_message
from pandacea.flows.worker import ExecutePorts

NOTHING_TO_HOLD: Final = frozenset(
    {Failure.CANCELLED, Failure.LEASE_LOST, Failure.INTERRUPTED, Failure.SANDBOX_FAILED, Failure.DATA_UNREADABLE}
)
"""Ends that are not the script's word: they tell nothing of the data, so the Earner need not look at them."""
SEALED: Final = frozenset({Charge.CHARGED, Charge.ALLOWANCE})


def ended(failure: Failure, detail: str, *, code_started: bool = False) -> Outcome:
    """An outcome without anything in it."""
    return Outcome(failure, detail, b"", code_started=code_started)


def kept_artifacts(outcome: Outcome) -> list[KeptArtifact]:
    """The artifacts of a run as rows name them."""
    return [KeptArtifact(item.name, item.path.name, item.size, item.sha256) for item in outcome.artifacts]


async def finish(job: Job, outcome: Outcome, ports: ExecutePorts, executed: Executed | None = None, *, sealed: bool = True) -> None:
    """Write the end of a run whose artifacts are on the disk. Nothing is written when the job is not RUNNING any more.

    Args:
        job: the run's job.
        outcome: how it ended.
        ports: what a worker works with.
        executed: what its box was given; None: a node that has died since knew, so its row must do.
        sealed: False for a run that cannot be sealed: it is never charged.
    """
    kept = kept_artifacts(outcome)
    async with ports.books.write() as work:
        row = await work.jobs.get(job.computation_id)
        if row is None or row.state is not JobState.RUNNING:
            if row is not None:  # ended by somebody else, or by an earlier try of this whose answer was lost
                _tell(job.computation_id, row.state, ports)
            return
        end = await _decide(row, outcome, work, ports, executed, sealed=sealed)
        await work.jobs.move(job.computation_id, JobState.RUNNING, end.state, **end.values)
        if end.keeps:
            await work.jobs.add_artifacts(job.computation_id, kept)
        for message in end.messages:
            await work.outbox.put(message, ports.clock.now())
        work.after_commit(lambda: _tell(job.computation_id, end.state, ports))
        await work.commit()
    if not (end.keeps and kept):
        await ports.shelf.remove(job.computation_id)


@dataclass(frozen=True, slots=True)
class _End:
    state: JobState
    values: dict[str, Any]
    messages: list[Message]
    keeps: bool
    """Whether output and artifacts stay."""


async def _decide(row: Job, outcome: Outcome, work: Work, ports: ExecutePorts, executed: Executed | None, *, sealed: bool) -> _End:
    started = outcome.code_started or row.charge is Charge.CHARGED
    if row.cancel_asked:
        # The answer to the cancellation said so: a result that came meanwhile is not kept.
        outcome = ended(Failure.CANCELLED, "Cancelled by its Spender.", code_started=started)
    now = ports.clock.now()
    state = _state(row, outcome, started=started)
    counts = await work.jobs.counted(row.key)
    charge = _charge(row, outcome, state, started=started, failed_runs=counts.get(Charge.ALLOWANCE, 0))
    if not sealed:
        charge = row.charge_as(Charge.RETURNED)
    values: dict[str, Any] = {
        "charge": charge,
        "finished_at": now,
        "failure": outcome.failure,
        "detail": detail_of(outcome),
        "error": _error(row, outcome),
        "output": outcome.output,
        "truncated": outcome.truncated,
        "stored_bytes": len(outcome.output) + sum(item.size for item in outcome.artifacts),
    }
    messages = [job_message(replace(row, state=state), failure=outcome.failure)]
    if charge in SEALED:
        lease = ports.book.lease(row.lease_id)
        index = used(counts, lease.committed_count if lease else 0) + (0 if row.charge is Charge.CHARGED else 1)
        ran, place = executed or Executed.by_row(row), min(index, row.max_computations)
        seal = ports.sealer.seal(row, ran, outcome, index=place, finished_at=now)
        values |= {"manifest": seal.manifest, "result_hash": seal.result_hash, "receipt": seal.receipt}
        # A lost lease takes no commitment; a held result is committed when it is released, or never.
        if ports.post_results and charge is Charge.CHARGED and state is not JobState.HELD and outcome.failure != Failure.LEASE_LOST:
            messages.append(commitment(row, seal.result_hash))
    return _End(state, values, messages, keeps=bool(outcome.output or outcome.artifacts))


def _state(row: Job, outcome: Outcome, *, started: bool) -> JobState:
    if outcome.failure is Failure.CANCELLED:
        return JobState.CANCELLED
    if row.release == Release.HOLD and started and outcome.failure not in NOTHING_TO_HOLD:
        return JobState.HELD
    return JobState.COMPLETED if outcome.failure is None else JobState.FAILED


def _charge(row: Job, outcome: Outcome, state: JobState, *, started: bool, failed_runs: int) -> Charge:
    if state is JobState.HELD:
        return row.charge_as(Charge.CHARGED)  # whether the allowance pays would tell how the script ended; said when it is released
    return row.charge_as(at_end(outcome.failure, code_started=started, released=row.live_at is not None, failed_runs=failed_runs))


def _tell(computation_id: str, state: JobState, ports: ExecutePorts) -> None:
    ports.watch.closed(computation_id)
    if state is not JobState.HELD:  # a held result tells nobody that its run is over
        ports.watch.changed(computation_id)


def commitment(job: Job, result_hash: str) -> Message:
    """What the chain is to be told of a result: its blinded hash."""
    payload = {"lease_id": job.lease_id, "computation_id": job.computation_id, "result_hash": result_hash}
    return Message(Channel.CHAIN, f"commit:{job.computation_id}", "commitResult", payload)


def _error(row: Job, outcome: Outcome) -> dict[str, Any] | None:
    if outcome.failure is None:
        return None
    error: dict[str, Any] = {"type": outcome.failure.value, "message": detail_of(outcome)}
    if outcome.script_error is not None:
        error |= {"exception": printable(outcome.script_error.type, limit=100), "line": outcome.script_error.line}
        if row.show_messages:
            error["exception_message"] = outcome.script_error.message
    return error


def detail_of(outcome: Outcome) -> str:
    """One sentence for the Spender; never the exception's own message, nor a parser's, which may quote a row."""
    if outcome.failure is Failure.DATA_UNREADABLE:
        return "An asset of the product cannot be read as a table on the node; nothing was charged. Tell the Earner."
    raised = outcome.script_error
    if raised is None:
        return outcome.detail
    where = "" if raised.line is None else f" in line {raised.line}"
    return f"The script raised {printable(raised.type, limit=100)}{where}."
