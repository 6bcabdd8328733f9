"""A Spender takes a computation back."""

from __future__ import annotations

from pandacea.domain.charge import Charge
from pandacea.domain.job import Job, JobState
from pandacea.domain.outcome import Failure
from pandacea.flows.ports import Books, Clock
from pandacea.flows.submit import Forbidden, job_message
from pandacea.flows.watch import Watch


async def cancel(job: Job, books: Books, watch: Watch, clock: Clock) -> None:
    """Cancel a computation that has not ended: a waiting one at once and uncharged, a running one by destroying its box.

    Raises:
        Forbidden: `not-cancellable`: it has ended.
    """
    now = clock.now()
    async with books.write() as work:
        values = {"finished_at": now, "failure": Failure.CANCELLED, "detail": "Cancelled by its Spender before it started."}
        if await work.jobs.move(job.computation_id, JobState.PENDING, JobState.CANCELLED, charge=Charge.RETURNED, **values):
            current = await work.jobs.get(job.computation_id)
            if current is not None:
                await work.outbox.put(job_message(current), now)
            work.after_commit(lambda: watch.ended(job.computation_id))
            await work.commit()
            return
        current = await work.jobs.get(job.computation_id)
    if current is not None and current.state is JobState.RUNNING:
        watch.cancelled(job.computation_id).set()
        return
    state = "gone" if current is None else current.state.value
    raise Forbidden("not-cancellable", f"This computation is {state}; only a pending or running one can be cancelled.")
