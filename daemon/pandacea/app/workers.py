"""The workers that run computations, and how they stop: no new one, those under way until the grace period is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from pandacea.app.loops import Loop
from pandacea.flows.watch import Watch

log = structlog.get_logger(__name__)

STEP_MARGIN_SECONDS: Final = 600.0
"""Beyond the time limit of a script: for its box, its result and its end, each of which has a bound of its own."""


class Workers:
    """`number` loops over one step, which runs one waiting job to its end."""

    def __init__(self, number: int, watch: Watch) -> None:
        """Give them their step before they run."""
        self.watch = watch
        self._step: Callable[[], Awaitable[bool]] | None = None
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self.stopping = False
        self.loops = [Loop(f"worker-{place}", self._run) for place in range(number)]

    def begin(self, step: Callable[[], Awaitable[bool]]) -> None:
        """`step` asks `stopping` itself before it takes a job."""
        self._step = step

    def wake(self) -> None:
        """A job waits."""
        for loop in self.loops:
            loop.wake()

    async def _run(self) -> bool:
        assert self._step is not None
        self._busy += 1
        self._idle.clear()
        try:
            return await self._step()
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    def trouble(self, time_limit: float) -> str | None:
        """Why computations may not run though the workers are there: a step that lasts longer than any should; None when none does.

        `time_limit` in seconds: what a script may take.
        """
        longest = time_limit + STEP_MARGIN_SECONDS
        stuck = [f"{loop.name} for {loop.busy_seconds:.0f} s" for loop in self.loops if loop.busy_seconds > longest]
        return f"in one step: {', '.join(stuck)}" if stuck else None

    async def drain(self, seconds: float) -> None:
        """Start nothing more, and wait for what runs, at most `seconds`. What is left then is ended by cancelling the loops."""
        self.stopping = True
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            log.warning(
                "node.stops_running_jobs", count=self._busy, meaning="they end as interrupted, uncharged unless they showed output"
            )
