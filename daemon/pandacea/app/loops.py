"""One loop skeleton for everything that works through rows."""

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
RETRY_SECONDS: Final = 5.0


class Loop:
    """Repeats a step while it has work; sleeps until woken or `idle` seconds passed when it has none.

    `Unavailable` and `Broken` of a step are logged and waited out: the next step may find the world mended. Anything else is a defect of
    ours and ends the node, which starts again from its rows.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[object]], *, idle: float = IDLE_SECONDS) -> None:
        """`step` returns something true when it did work and may have more."""
        self.name = name
        self._step = step
        self._idle = idle
        self._wake = asyncio.Event()
        self._since: float | None = None

    @property
    def busy_seconds(self) -> float:
        """How long the step under way has lasted; 0 between two steps."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def wake(self) -> None:
        """There is work."""
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            self._wake.clear()
            self._since = time.monotonic()
            try:
                busy = bool(await self._step())
                pause = self._idle
            except (Unavailable, Broken) as problem:
                log.warning("loop.waits", loop=self.name, problem=problem.detail)
                busy, pause = False, RETRY_SECONDS
            self._since = None
            if not busy:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)


def supervise_task(background: TaskSupervisor, work: Any, name: str, stack: AsyncExitStack) -> asyncio.Task[Any]:
    """Run a coroutine for as long as the node lives; ended, and waited for, when the stack unwinds."""
    running = background.start_task(work, name)
    stack.push_async_callback(background.stop_tasks, running)
    return running
