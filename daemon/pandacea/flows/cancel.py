"""A Spender takes a computation back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from pandacea.domain.charge import Charge
from pandacea.domain.job import TERMINAL, Job, JobState
from pandacea.domain.outcome import Failure
from pandacea.domain.product import Release
from pandacea.flows.books import Books, Work
from pandacea.flows.ports import Clock
from pandacea.flows.shelf import Shelf
from pandacea.flows.submit import Forbidden, job_message
from pandacea.flows.watch import Watch

CANCELLED: Final = "Cancelled by its Spender."
CANCELLED_ERROR: Final[dict[str, Any]] = {"type": Failure.CANCELLED.value, "message": CANCELLED}
EMPTIED: Final[dict[str, Any]] = {"output": b"", "manifest": None, "receipt": None, "truncated": False, "stored_bytes": 0}
"""A result of which nothing is left to leave. Its blinded hash stays, for the Earner's own record."""


async def cancel(job: Job, books: Books, watch: Watch, clock: Clock, shelf: Shelf) -> None:
    """Cancel a computation: a waiting one at once and uncharged; a running one by destroying its box; a held one by dropping it.

    For a running one the wish is durable when this returns: the job ends CANCELLED even if the node dies now.

    Raises:
        Forbidden: `not-cancellable`: it has ended.
    """
    now = clock.now()
    async with books.write() as work:
        current = await work.jobs.get(job.computation_id)
        if current is None or as_seen(current).state in TERMINAL:
            state = "gone" if current is None else as_seen(current).state.value
            raise Forbidden("not-cancellable", f"This computation is {state}; only one that has not ended can be cancelled.")
        if current.state is JobState.RUNNING:
            await work.jobs.ask_to_cancel(job.computation_id)
            work.after_commit(watch.cancelled(job.computation_id).set)
            work.after_commit(lambda: watch.changed(job.computation_id))
        else:
            await _drop(current, work, now)
            work.after_commit(lambda: watch.changed(job.computation_id))
        await work.commit()
    if current.state is JobState.HELD:
        await shelf.remove(job.computation_id)


def as_seen(job: Job) -> Job:
    """Return a computation as its Spender may see it: cancelled from the cancellation on where its result would have been held.

    Whether its run was over by then, or its sandbox is still being destroyed, would tell how long the script ran.
    """
    if job.state is not JobState.RUNNING or not job.cancel_asked or job.release != Release.HOLD:
        return job
    return replace(job, state=JobState.CANCELLED, failure=Failure.CANCELLED, detail=CANCELLED, error=CANCELLED_ERROR, **EMPTIED)


async def _drop(job: Job, work: Work, now: float) -> None:
    values: dict[str, Any] = {"finished_at": now, "failure": Failure.CANCELLED, "detail": CANCELLED}
    values["error"] = CANCELLED_ERROR
    if job.state is JobState.PENDING:
        values["charge"] = job.charge_as(Charge.RETURNED)
    else:  # its code ran: what it cost stays
        values |= EMPTIED | {"removed_at": now}
        await work.jobs.forget_artifacts(job.computation_id)
    await work.jobs.move(job.computation_id, job.state, JobState.CANCELLED, **values)
    await work.outbox.put(job_message(replace(job, state=JobState.CANCELLED)), now)
