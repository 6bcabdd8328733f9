"""The loop of workers, deliveries and retention, and the supervised start of background tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Final

import structlog

from pandacea.errors import Broken, Unavailable
from pandacea.tasks import TaskSupervisor

log = structlog.get_logger(__name__)

IDLE_SECONDS: Final = 1.0
"""Seconds between two steps when there was nothing to do."""
RETRY_SECONDS: Final = 5.0
"""Seconds between two steps after one that failed."""


class Loop:
    """Repeats a step while it has work; when it has none, sleeps until woken or until `idle` seconds have passed.

    `Unavailable` and `Broken` are logged, and the step is tried again after RETRY_SECONDS. Any other exception is a defect and ends the
    node, which starts again from its rows.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[object]], *, idle: float = IDLE_SECONDS) -> None:
        """`step` returns a true value when it did work and may have more."""
        self.name = name
        self._step = step
        self._idle = idle
        self._wake = asyncio.Event()
        self._since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """Seconds that the step under way has lasted; 0 between two steps."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def wake(self) -> None:
        """Run the step now instead of after the idle interval."""
        self._wake.set()

    async def run(self) -> None:
        """Run the step repeatedly until cancelled."""
        while True:
            self._wake.clear()
            self._since = time.monotonic()
            try:
                busy = bool(await self._step())
                pause = self._idle
            except (Unavailable, Broken) as problem:
                log.warning("loop.step_failed", loop=self.name, reason=problem.detail, retry_seconds=RETRY_SECONDS)
                busy, pause = False, RETRY_SECONDS
            self._since = None
            if not busy:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)


def supervise_task(background: TaskSupervisor, work: Any, name: str, stack: AsyncExitStack) -> asyncio.Task[Any]:
    """Start a background task that is cancelled, and waited for, when `stack` unwinds."""
    running = background.start_task(work, name)
    stack.push_async_callback(background.stop_tasks, running)
    return running
