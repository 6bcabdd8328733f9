"""Cancel a computation for its Spender."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, Final

from pandacea.domain.audit_entries import audit_job
from pandacea.domain.charge import Charge
from pandacea.domain.job import TERMINAL, Job, JobState
from pandacea.domain.outcome import Failure
from pandacea.domain.product import Release
from pandacea.errors import ProblemError
from pandacea.files.results import ResultStore
from pandacea.flows.job_events import CLEARED_RESULT
from pandacea.flows.live_output import JobNotifier
from pandacea.flows.messages import computation_event
from pandacea.flows.ports import Clock
from pandacea.flows.unit_of_work import Database, UnitOfWork
from pandacea.tasks import log_task_failure
from pandacea_sdk.protocol.json_types import JsonObject

CANCELLED_DETAIL: Final = "Cancelled by its Spender."
_CANCELLED_ERROR: Final[JsonObject] = {"type": Failure.CANCELLED.value, "message": CANCELLED_DETAIL}
_removals: Final[set[asyncio.Task[None]]] = set()
"""Referenced until they end, because the event loop keeps only weak references."""


async def cancel_job(job: Job, database: Database, notifier: JobNotifier, clock: Clock, results: ResultStore) -> None:
    """Cancel a computation: a waiting one at once and uncharged; a running one by destroying its sandbox; a held one by dropping it.

    For a running one the cancellation is durable when this returns: the job ends CANCELLED even if the node dies now.

    Raises:
        ProblemError: `not-cancellable`: it has ended.
    """
    now = clock.now()
    async with database.unit_of_work() as work:
        current = await work.jobs.find_visible_job(job.computation_id)
        if current is None or as_spender_sees(current).state in TERMINAL:
            state = "gone" if current is None else as_spender_sees(current).state.value
            raise ProblemError("not-cancellable", f"This computation is {state}; only one that has not ended can be cancelled.")
        if current.state is JobState.RUNNING:
            await work.jobs.request_cancel(job.computation_id)
            work.after_commit(notifier.cancel_event(job.computation_id).set)
        else:
            await _drop(current, work, now)
        work.after_commit(lambda: notifier.notify(job.computation_id))
        await work.commit()
    if current.state is JobState.HELD:
        # The answer does not wait: how long this takes would tell that there was a result. The next start removes what a stop leaves.
        removal = asyncio.create_task(results.remove_folder(job.computation_id), name="remove-cancelled")
        _removals.add(removal)
        removal.add_done_callback(_removals.discard)
        removal.add_done_callback(log_task_failure)


def as_spender_sees(job: Job) -> Job:
    """Return a job as its Spender may see it: cancelled from the cancellation on where its result would have been held.

    Whether its run was over by then, or its sandbox is still being destroyed, would tell how long the script ran.
    """
    if job.state is not JobState.RUNNING or not job.cancel_asked or job.release != Release.HOLD:
        return job
    return replace(
        job,
        state=JobState.CANCELLED,
        failure=Failure.CANCELLED,
        detail=CANCELLED_DETAIL,
        error=_CANCELLED_ERROR,
        **CLEARED_RESULT,
    )


async def _drop(job: Job, work: UnitOfWork, now: float) -> None:
    """End a job that is not running; what its code cost stays."""
    values: dict[str, Any] = {
        "finished_at": now,
        "failure": Failure.CANCELLED,
        "detail": CANCELLED_DETAIL,
        "error": _CANCELLED_ERROR,
    }
    if job.state is JobState.PENDING:
        values["charge"] = job.charge_for_mode(Charge.RETURNED)
    else:
        values |= CLEARED_RESULT | {"removed_at": now}
        await work.jobs.delete_artifacts(job.computation_id)
        await work.audit.append_entry("result-cancelled", now, job.spender, audit_job(job))
    await work.jobs.change_state(job.computation_id, job.state, JobState.CANCELLED, **values)
    await work.outbox.put_event(computation_event(replace(job, state=JobState.CANCELLED)), now)
