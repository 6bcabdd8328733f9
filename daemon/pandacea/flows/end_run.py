"""Every run ends, whatever stands in the way of its end: a disk, a database, a result that cannot be sealed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import structlog

from pandacea.domain.charge import Charge
from pandacea.domain.job import Job, Mode
from pandacea.domain.outcome import Failure, Outcome, not_stored_detail
from pandacea.errors import Unavailable
from pandacea.flows.finish import empty_outcome, finish_run, stored_artifacts
from pandacea.flows.ports import SandboxJob
from pandacea.flows.sign_result import ExecutedInputs
from pandacea.flows.worker import ExecutePorts

log = structlog.get_logger(__name__)

T = TypeVar("T")

RETRY_SECONDS: Final = (0.5, 1.0, 2.0, 5.0)
"""Between two tries to write an end that the database did not take."""
FSYNC_SECONDS: Final = 300.0
"""So long a disk may take to make artifacts durable."""
WRITE_SECONDS: Final = 120.0
"""So long one try to write an end may take: a database that hangs is asked again."""

_NOT_SEALED: Final = "The result could not be sealed, so nothing of it was kept; this counts as the script's doing."
_NEVER_SEALED: Final = (
    "The node could not seal the end of this run, and its log says why; nothing was charged. Try again later, or tell the Earner."
)


async def end_run(job: Job, outcome: Outcome, ports: ExecutePorts, box: SandboxJob | None = None) -> None:
    """Write the end of a run, with its result if that can be stored and sealed, and without it if not.

    Args:
        job: the run's job, RUNNING.
        outcome: how the run ended.
        ports: what a worker works with.
        box: what its box was given; None: it was given nothing, or a node that has died since gave it.
    """
    outcome = await _secure(job, outcome, ports)
    executed = None
    try:
        if job.mode is Mode.LIVE and box is not None:
            executed = ExecutedInputs.from_sandbox_job(box)
        await retry_write(job, lambda: finish_run(job, outcome, ports, executed))
    except Exception:
        log.exception("run.not_sealed", computation_id=job.computation_id)
        await _conclude_empty(job, outcome, ports, executed)


async def _conclude_empty(job: Job, outcome: Outcome, ports: ExecutePorts, executed: ExecutedInputs | None) -> None:
    """Without the result; and unsigned, so uncharged, if even that cannot be sealed: then nothing of the script is left in it."""
    started = outcome.code_started or job.charge is Charge.CHARGED
    failure, detail = (Failure.GUEST_DIED, _NOT_SEALED) if started else (Failure.SANDBOX_FAILED, _NEVER_SEALED)
    try:
        await retry_write(job, lambda: finish_run(job, empty_outcome(failure, detail, code_started=started), ports, executed))
    except Exception:
        log.exception("run.never_sealed", computation_id=job.computation_id)
        await retry_write(job, lambda: finish_run(job, empty_outcome(Failure.SANDBOX_FAILED, _NEVER_SEALED), ports, signed=False))


async def _secure(job: Job, outcome: Outcome, ports: ExecutePorts) -> Outcome:
    """Bring the artifacts to the disk; the outcome without them when it does not take them."""
    try:
        async with asyncio.timeout(FSYNC_SECONDS):
            await ports.results.make_durable(job.computation_id, stored_artifacts(outcome))
    except (OSError, TimeoutError) as problem:
        log.exception("result.not_secured", computation_id=job.computation_id)
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
            log.warning("result.not_written", computation_id=job.computation_id, problem=reason, again_in_seconds=pause)
            tries += 1
            await asyncio.sleep(pause)
