"""Warm boxes kept ready, refilled within a budget of processors; a box leaves the pool once and never comes back."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from pandacea.errors import Unavailable
from pandacea.sandbox.boxes import Box, BoxMaker, BoxShape
from pandacea.sandbox.settings import PoolSettings

_RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
_QUIET_SECONDS: Final = 0.2
"""After a job's end: making a box takes seconds of a processor, and the result's way out needs milliseconds of it."""
_PATIENCE_SECONDS: Final = 1.0
"""So long a job is left the machine; a longer one does not keep the pool short."""


class Pool:
    """Hands out boxes: a warm one when its shape fits, else one made on the spot, cold unless the maker has a template."""

    def __init__(
        self,
        maker: BoxMaker,
        settings: PoolSettings,
        processors: int | None = None,
        *,
        quiet: float = _QUIET_SECONDS,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        """`quiet` and `patience` in seconds: how long a refill waits after a job's end, and at most for jobs to end."""
        self._maker, self._settings = maker, settings
        self._quiet, self._patience = quiet, patience
        self._shape = BoxShape.of(settings.limits)
        self._ready: deque[Box] = deque()
        self._running = 0
        self._processors = processors or os.cpu_count() or 1
        self._last_job = -math.inf
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.last_failure: str | None = None
        """Why the last refill failed; None when it did not."""

    def start(self) -> None:
        """Begin to fill the pool in the background."""
        if self._settings.size > 0 and self._task is None:
            self._last_job = -math.inf  # a self-test's boxes were no jobs: nobody waits for their answers
            self._task = asyncio.create_task(self._refill(), name="sandbox-pool")

    @property
    def idle(self) -> int:
        """Warm boxes waiting."""
        return len(self._ready)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count a job while it runs, so that refilling never takes the processors it needs."""
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._last_job = time.monotonic()
            self._changed.set()

    async def take(self, shape: BoxShape) -> Box:
        """Return a box for one job. Raises Unavailable when none can be made."""
        while shape == self._shape and self._ready:
            box = self._ready.popleft()
            self._changed.set()
            if alive(box):
                return box
            await box.destroy()
        # A maker with a template forks a warm box of any shape at once; others would make the job wait for imports it may not need.
        preload = self._settings.preload if self._settings.size and self._maker.warm_at_once else ()
        return await self._maker.make(shape, preload, self._settings.boot_seconds)

    async def close(self) -> None:
        """Stop refilling and destroy every waiting box."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        while self._ready:
            await self._ready.popleft().destroy()

    async def _refill(self) -> None:
        failures = 0
        while True:
            await self._turn()
            try:
                self._ready.append(await self._maker.make(self._shape, self._settings.preload, self._settings.boot_seconds))
            except Unavailable as error:
                self.last_failure = error.detail
                delay = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                await asyncio.sleep(delay)
            else:
                self.last_failure = None
                failures = 0

    async def _turn(self) -> None:
        """Return when a box is wanted and making it takes no processor that a job needs."""
        since = math.inf
        while True:
            self._changed.clear()
            wait = None
            if len(self._ready) < self._settings.size and self._running < self._processors:
                now = time.monotonic()
                since = min(since, now)
                wait = since + self._patience - now
                if not self._running:
                    wait = min(wait, self._last_job + self._quiet - now)
                if wait <= 0:
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()


def alive(box: Box) -> bool:
    """Whether the guest still holds its end: an idle guest says nothing, so anything to read is the end of it."""
    try:
        box.sock.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
