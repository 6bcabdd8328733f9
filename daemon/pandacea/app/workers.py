"""The workers that run computations, and how they stop: no new one, those under way until the grace period is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from pandacea.config.sections import PrivacySection
from pandacea.domain.job import Mode
from pandacea.domain.limits import MIB
from pandacea.flows.live_output import JobNotifier
from pandacea.tasks import Loop

log = structlog.get_logger(__name__)

STEP_MARGIN_SECONDS: Final = 600.0
"""Beyond the time limit of a script: for its box, its result and its end, each of which has a bound of its own."""


MAX_WORKERS: Final = 8
"""Of `privacy.workers: auto`."""


def count_workers(privacy: PrivacySection, *, processors: int, memory_bytes: int) -> int:
    """How many computations run at one time: as configured, or as many as the machine holds.

    Each is counted with all the processors it may use and, of half the memory, with its whole limit: the other half is the system's, the
    warm boxes' and the tables' in the page cache.

    Args:
        privacy: the configuration.
        processors: that this process may use.
        memory_bytes: of the machine.
    """
    if privacy.workers != "auto":
        return privacy.workers
    by_processors = int(processors / privacy.limits.cpus)
    by_memory = memory_bytes // 2 // (privacy.limits.memory_mb * MIB)
    return max(1, min(by_processors, by_memory, MAX_WORKERS))


def max_running_per_spender(workers: int) -> int:
    """Computations of one Spender that run at one time: never all workers where there is more than one.

    So a Spender's endless scripts leave a place for everybody else.
    """
    return max(1, workers - 1)


class Workers:
    """`number` loops that run one waiting leased job after another to its end, and one more for rehearsals.

    Rehearsals have a worker of their own because they are free: they must neither keep a paid run waiting nor tell, by when they start,
    when a run ended whose result is held.
    """

    def __init__(self, number: int, watch: JobNotifier) -> None:
        """Give them their step before they run."""
        self.notifier = watch
        self._step: Callable[[Mode], Awaitable[bool]] | None = None
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.stopping = False
        self.loops = [Loop(f"worker-{place}", lambda: self._run(Mode.LIVE)) for place in range(number)]
        self.loops.append(Loop("worker-rehearsals", lambda: self._run(Mode.MOCK)))

    def set_step(self, step: Callable[[Mode], Awaitable[bool]]) -> None:
        """`step` runs a job of one mode; it asks `stopping` itself before it takes one."""
        self._step = step

    def wake(self) -> None:
        """A job waits."""
        for loop in self.loops:
            loop.wake()

    async def _run(self, mode: Mode) -> bool:
        assert self._step is not None
        self._busy += 1
        self._idle.clear()
        try:
            return await self._step(mode)
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    def stuck_reason(self, time_limit_seconds: float) -> str | None:
        """Why computations may not run though the workers are there: a step that lasts longer than any should; None when none does.

        `time_limit` in seconds: what a script may take.
        """
        longest = time_limit_seconds + STEP_MARGIN_SECONDS
        stuck = [f"{loop.name} for {loop.busy_seconds:.0f} s" for loop in self.loops if loop.busy_seconds > longest]
        return f"in one step: {', '.join(stuck)}" if stuck else None

    async def drain(self, timeout: float) -> None:
        """Start nothing more, and wait for what runs, at most `seconds`. What is left then is ended by cancelling the loops."""
        self.stopping = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            log.warning(
                "node.stops_running_jobs", count=self._busy, meaning="they end as interrupted, uncharged unless they showed output"
            )
