"""The end of a run: state, charge, manifest, receipt, artifacts and what the world is to be told, in one transaction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from pandacea.domain.charge import Charge, charge_at_end, count_used
from pandacea.domain.job import Job, JobState
from pandacea.domain.outcome import Failure, Outcome
from pandacea.domain.printable import printable
from pandacea.domain.product import Release
from pandacea.flows.cancel import CANCELLED_DETAIL, CLEARED_RESULT
from pandacea.flows.sign_result import ExecutedInputs
from pandacea.flows.submit import job_message
from pandacea.flows.unit_of_work import Channel, OutboxMessage, StoredArtifact, UnitOfWork
from pandacea.flows.worker import ExecutePorts

NEVER_HELD: Final = frozenset(
    {Failure.CANCELLED, Failure.LEASE_LOST, Failure.INTERRUPTED, Failure.SANDBOX_FAILED, Failure.DATA_UNREADABLE}
)
"""Ends that are not the script's word: they tell nothing of the data, so the Earner need not look at them."""
SIGNED_CHARGES: Final = frozenset({Charge.CHARGED, Charge.ALLOWANCE})


def empty_outcome(failure: Failure, detail: str, *, code_started: bool = False) -> Outcome:
    """An outcome without anything in it."""
    return Outcome(failure, detail, b"", code_started=code_started)


def stored_artifacts(outcome: Outcome) -> list[StoredArtifact]:
    """The artifacts of a run as rows name them."""
    return [StoredArtifact(item.name, item.path.name, item.size, item.sha256) for item in outcome.artifacts]


async def finish_run(
    job: Job, outcome: Outcome, ports: ExecutePorts, executed: ExecutedInputs | None = None, *, signed: bool = True
) -> None:
    """Write the end of a run whose artifacts are on the disk. Nothing is written when the job is not RUNNING any more.

    Args:
        job: the run's job.
        outcome: how it ended.
        ports: what a worker works with.
        executed: what its box was given; None: a node that has died since knew, so its row must do.
        sealed: False for a run that cannot be sealed: it is never charged.
    """
    kept = stored_artifacts(outcome)
    async with ports.database.unit_of_work() as work:
        row = await work.jobs.find_job(job.computation_id)
        if row is None or row.state is not JobState.RUNNING:
            if row is not None:  # ended by somebody else, or by an earlier try of this whose answer was lost
                _notify(job.computation_id, row.state, ports)
            return
        end = await _decide(row, outcome, work, ports, executed, sealed=signed)
        await work.jobs.change_state(job.computation_id, JobState.RUNNING, end.state, **end.values)
        if end.keeps:
            await work.jobs.insert_artifacts(job.computation_id, kept)
        for message in end.messages:
            await work.outbox.put_message(message, ports.clock.now())
        work.after_commit(lambda: _notify(job.computation_id, end.state, ports))
        await work.commit()
    if not (end.keeps and kept):
        await ports.results.remove_folder(job.computation_id)


@dataclass(frozen=True, slots=True)
class _End:
    state: JobState
    values: dict[str, Any]
    messages: list[OutboxMessage]
    keeps: bool
    """Whether output and artifacts stay."""


async def _decide(
    row: Job, outcome: Outcome, work: UnitOfWork, ports: ExecutePorts, executed: ExecutedInputs | None, *, sealed: bool
) -> _End:
    started = outcome.code_started or row.charge is Charge.CHARGED
    if row.cancel_asked:
        # The answer to the cancellation said so: a result that came meanwhile is not kept.
        outcome = empty_outcome(Failure.CANCELLED, CANCELLED_DETAIL, code_started=started)
    now = ports.clock.now()
    state = _state(row, outcome, started=started)
    counts = await work.jobs.count_by_charge(row.lease_key)
    charge = _charge(row, outcome, state, started=started, failed_runs=counts.get(Charge.ALLOWANCE, 0))
    if not sealed:
        charge = row.charge_for_mode(Charge.RETURNED)
    values: dict[str, Any] = {
        "charge": charge,
        "finished_at": now,
        "failure": outcome.failure,
        "detail": public_detail(outcome),
        "error": _error(row, outcome),
        "output": outcome.output,
        "truncated": outcome.truncated,
        "stored_bytes": len(outcome.output) + sum(item.size for item in outcome.artifacts),
    }
    messages = [job_message(replace(row, state=state), failure=outcome.failure)]
    if state is JobState.CANCELLED and row.release == Release.HOLD:
        values |= CLEARED_RESULT | {"removed_at": now}  # as one that was cancelled after its run: the two must not differ
    elif charge in SIGNED_CHARGES:
        lease = ports.leases.find_lease(row.lease_id)
        index = count_used(counts, lease.committed_count if lease else 0) + (0 if row.charge is Charge.CHARGED else 1)
        ran, place = executed or ExecutedInputs.from_job(row), min(index, row.max_computations)
        seal = ports.signer.sign_result(row, ran, outcome, index=place, finished_at=now)
        values |= {"manifest": seal.manifest, "result_hash": seal.result_hash, "receipt": seal.receipt}
        # A lost lease takes no commitment; a held result is committed when it is released, or never.
        if ports.post_results and charge is Charge.CHARGED and state is not JobState.HELD and outcome.failure != Failure.LEASE_LOST:
            messages.append(result_commitment(row, seal.result_hash))
    return _End(state, values, messages, keeps=bool(outcome.output or outcome.artifacts))


def _state(row: Job, outcome: Outcome, *, started: bool) -> JobState:
    if outcome.failure is Failure.CANCELLED:
        return JobState.CANCELLED
    if row.release == Release.HOLD and started and outcome.failure not in NEVER_HELD:
        return JobState.HELD
    return JobState.COMPLETED if outcome.failure is None else JobState.FAILED


def _charge(row: Job, outcome: Outcome, state: JobState, *, started: bool, failed_runs: int) -> Charge:
    if state is JobState.HELD:
        return row.charge_for_mode(
            Charge.CHARGED
        )  # whether the allowance pays would tell how the script ended; said when it is released
    return row.charge_for_mode(
        charge_at_end(outcome.failure, code_started=started, released=row.live_at is not None, failed_runs=failed_runs)
    )


def _notify(computation_id: str, state: JobState, ports: ExecutePorts) -> None:
    ports.notifier.close_feed(computation_id)
    if state is not JobState.HELD:  # a held result tells nobody that its run is over
        ports.notifier.notify(computation_id)


def result_commitment(job: Job, result_hash: str) -> OutboxMessage:
    """What the chain is to be told of a result: its blinded hash."""
    payload = {"lease_id": job.lease_id, "computation_id": job.computation_id, "result_hash": result_hash}
    return OutboxMessage(Channel.CHAIN, f"commit:{job.computation_id}", "commitResult", payload)


def _error(row: Job, outcome: Outcome) -> dict[str, Any] | None:
    if outcome.failure is None:
        return None
    error: dict[str, Any] = {"type": outcome.failure.value, "message": public_detail(outcome)}
    if outcome.script_error is not None:
        error |= {"exception": printable(outcome.script_error.type, limit=100), "line": outcome.script_error.line}
        if row.show_messages:
            error["exception_message"] = outcome.script_error.message
    return error


def public_detail(outcome: Outcome) -> str:
    """One sentence for the Spender; never the exception's own message, nor a parser's, which may quote a row."""
    if outcome.failure is Failure.DATA_UNREADABLE:
        return "An asset of the product cannot be read as a table on the node; nothing was charged. Tell the Earner."
    raised = outcome.script_error
    if raised is None:
        return outcome.detail
    where = "" if raised.line is None else f" in line {raised.line}"
    return f"The script raised {printable(raised.type, limit=100)}{where}."
