"""At start: end what a stopped node left RUNNING, and throw away what belongs to no row."""

from __future__ import annotations

from typing import Final

import structlog

from pandacea.domain.job import JobState
from pandacea.domain.outcome import Failure
from pandacea.flows.end_run import end_run
from pandacea.flows.finish import empty_outcome
from pandacea.flows.retention import KEEP_DELIVERED_SECONDS, KEEP_WAITING_SECONDS
from pandacea.flows.worker import ExecutePorts

log = structlog.get_logger(__name__)

KILLED_DETAIL: Final = "The node stopped while this was running; nothing of it was kept. Submit it again."


async def recover_jobs(ports: ExecutePorts) -> None:
    """Run before any worker. A job that was RUNNING ends: its box is gone, and running it again could show two results for one.

    It costs nothing unless something of it left already (live output); a cancellation that was asked for is carried out.
    """
    async with ports.database.read_session() as view:
        left = await view.jobs.list_in_state(JobState.RUNNING)
    for computation_id in left:
        async with ports.database.read_session() as view:
            job = await view.jobs.find_job(computation_id)
        if job is not None:
            await end_run(job, empty_outcome(Failure.INTERRUPTED, KILLED_DETAIL), ports)
    if left:
        log.warning("jobs.interrupted", count=len(left))
    await _sweep(ports)
    now = ports.clock.now()
    async with ports.database.unit_of_work() as work:  # before anything is delivered: a broker must not hear old news
        await work.outbox.prune_messages(now - KEEP_DELIVERED_SECONDS, now - KEEP_WAITING_SECONDS)
        await work.commit()


async def _sweep(ports: ExecutePorts) -> None:
    """A folder without a row that keeps it: a run that was killed, or bytes whose removal was."""
    async with ports.database.read_session() as view:
        kept = await view.jobs.list_with_results()
    for name in ports.results.list_unknown(kept):
        await ports.results.remove_folder(name)
