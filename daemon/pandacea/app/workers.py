"""The workers that run computations. At a stop none starts a new one; those that run may end within the grace period."""

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
"""Seconds beyond the time limit of a script: for starting its sandbox and for storing its result, which have time limits of their own."""

MAX_WORKERS: Final = 8
"""The most workers that `privacy.workers: auto` gives."""


def count_workers(privacy: PrivacySection, *, processors: int, memory_bytes: int) -> int:
    """Return how many computations run at one time: as configured, or as many as the machine holds.

    Each counts with all the processors it may use, and with its whole memory limit out of half of the machine's memory. The other half is
    for the system, warm sandboxes, and tables in the page cache.

    Args:
        privacy: the section of the configuration.
        processors: how many this process may use.
        memory_bytes: of the machine.
    """
    if privacy.workers != "auto":
        return privacy.workers
    by_processors = int(processors / privacy.limits.cpus)
    by_memory = memory_bytes // 2 // (privacy.limits.memory_mb * MIB)
    return max(1, min(by_processors, by_memory, MAX_WORKERS))


def max_running_per_spender(workers: int) -> int:
    """Return how many computations of one Spender run at one time: never all workers where there is more than one.

    So the endless scripts of one Spender leave a worker for the others.
    """
    return max(1, workers - 1)


class Workers:
    """Runs leased jobs in `number` loops, one job at a time each, and rehearsals in one more.

    Rehearsals have a loop of their own because they are free: they must not delay a paid run, and the time at which they start must not
    show when a run ended whose result is held.
    """

    def __init__(self, number: int, notifier: JobNotifier) -> None:
        """Call `set_step` before the loops run."""
        self.notifier = notifier
        self.number = number
        self._step: Callable[[Mode], Awaitable[bool]] | None = None
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.stopping = False
        self.loops = [Loop(f"worker-{place}", lambda: self._run(Mode.LIVE)) for place in range(number)]
        self.loops.append(Loop("worker-rehearsals", lambda: self._run(Mode.MOCK)))

    def set_step(self, step: Callable[[Mode], Awaitable[bool]]) -> None:
        """Set what the loops run: `step` runs one job of a mode, and checks `stopping` before it takes one."""
        self._step = step

    def wake(self) -> None:
        """Wake the loops: a job waits."""
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
        """Return which workers are in a step that has lasted longer than any step should; None: no worker is.

        `time_limit_seconds`: how long a script may run.
        """
        longest = time_limit_seconds + STEP_MARGIN_SECONDS
        stuck = [f"{loop.name} for {loop.busy_seconds:.0f} s" for loop in self.loops if loop.busy_seconds > longest]
        return f"in one step: {', '.join(stuck)}" if stuck else None

    async def drain(self, timeout: float) -> None:
        """Start no more jobs and wait for those that run, at most `timeout` seconds. Cancelling the loops ends those that are left."""
        self.stopping = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            log.warning(
                "node.stops_running_jobs", count=self._busy, meaning="they end as interrupted, uncharged unless they showed output"
            )
