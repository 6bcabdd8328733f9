"""At start: end what a stopped node left RUNNING, and throw away what belongs to no row."""

from __future__ import annotations

from typing import Final

import structlog

from pandacea.domain.job import JobState
from pandacea.domain.outcome import Failure
from pandacea.flows.conclude import conclude
from pandacea.flows.finish import ended
from pandacea.flows.housekeeping import KEEP_DELIVERED, KEEP_WAITING
from pandacea.flows.worker import ExecutePorts

log = structlog.get_logger(__name__)

KILLED: Final = "The node stopped while this was running; nothing of it was kept. Submit it again."


async def recover(ports: ExecutePorts) -> None:
    """Run before any worker. A job that was RUNNING ends: its box is gone, and running it again could show two results for one.

    It costs nothing unless something of it left already (live output); a cancellation that was asked for is carried out.
    """
    async with ports.books.read() as view:
        left = await view.jobs.in_state(JobState.RUNNING)
    for computation_id in left:
        async with ports.books.read() as view:
            job = await view.jobs.get(computation_id)
        if job is not None:
            await conclude(job, ended(Failure.INTERRUPTED, KILLED), ports)
    if left:
        log.warning("jobs.interrupted", count=len(left))
    await _sweep(ports)
    now = ports.clock.now()
    async with ports.books.write() as work:  # before anything is delivered: a broker must not hear old news
        await work.outbox.prune(now - KEEP_DELIVERED, now - KEEP_WAITING)
        await work.commit()


async def _sweep(ports: ExecutePorts) -> None:
    """A folder without a row that keeps it: a run that was killed, or bytes whose removal was."""
    async with ports.books.read() as view:
        kept = await view.jobs.with_results()
    for name in ports.shelf.strangers(kept):
        await ports.shelf.remove(name)
