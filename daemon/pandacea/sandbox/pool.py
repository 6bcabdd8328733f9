"""A pool of warm sandbox instances, refilled within a budget of processors and memory; an instance leaves it once and never returns."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pandacea.domain.limits import MIB
from pandacea.errors import Unavailable
from pandacea.sandbox.backend import InstanceShape, SandboxBackend, SandboxInstance
from pandacea.sandbox.settings import PoolSettings
from pandacea.tasks import RestartedTask

_RETRY_SECONDS: Final = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Waits after the first, second ... failed refill in a row; the last is repeated."""
_FAILURE_VALID_SECONDS: Final = 90.0
"""How long a failure to create an instance is reported: longer than the pool waits before it tries again."""
_REFILL_DELAY_SECONDS: Final = 0.2
"""After a job's end: creating an instance takes seconds of a processor, and sending the result needs milliseconds of it."""
_MAX_REFILL_DELAY_SECONDS: Final = 1.0
"""How long running jobs may delay a refill; a longer job does not keep the pool short."""
_IDLE_BYTES: Final = 300 * MIB
"""Memory of a warm instance that waits, at most (`benchmarks/sandbox.py` measures it)."""
_MEMORY_POLL_SECONDS: Final = 5.0
"""Between two checks of too little memory: no event reports that others have freed some."""


def available_memory() -> int:
    """Return the bytes that new processes of this machine can have without swapping: MemAvailable, proc(5)."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("Linux reports MemAvailable since version 3.14")


class InstancePool:
    """Hands out instances: a warm one where its shape fits, else a new one, cold unless the backend preloads for free."""

    def __init__(
        self,
        backend: SandboxBackend,
        settings: PoolSettings,
        processors: int | None = None,
        *,
        refill_delay: float = _REFILL_DELAY_SECONDS,
        max_refill_delay: float = _MAX_REFILL_DELAY_SECONDS,
        read_available_memory: Callable[[], int] = available_memory,
        memory_poll_seconds: float = _MEMORY_POLL_SECONDS,
    ) -> None:
        """`refill_delay` and `max_refill_delay` in seconds: how long a refill waits after a job's end, and at most for jobs to end.

        `read_available_memory` returns the bytes available on the machine; `processors` None: as many as the machine has.
        """
        self._backend, self._settings = backend, settings
        self._refill_delay, self._max_refill_delay = refill_delay, max_refill_delay
        self._read_available_memory, self._memory_poll_seconds = read_available_memory, memory_poll_seconds
        self._shape = InstanceShape.from_limits(settings.limits)
        self._ready: deque[SandboxInstance] = deque()
        self._running = 0
        self._reserved_bytes = 0
        self._processors = processors or os.cpu_count() or 1
        self._last_job = -math.inf
        self._changed = asyncio.Event()
        self._refilling = RestartedTask("sandbox-pool", self._refill)
        self._last_create_failure: tuple[float, str] | None = None
        self.last_failure: str | None = None
        """Why the pool is short; None when the last refill succeeded."""
        self.on_shortage: Callable[[str], None] = lambda _reason: None
        """Called with each new reason why the pool stays short."""

    def start(self) -> None:
        """Start filling the pool in the background."""
        if self._settings.size > 0 and not self._refilling.running:
            self._last_job = -math.inf  # instances of the self-test ran no job: no answer has to be sent first
            self._refilling.start()

    @property
    def unavailable_reason(self) -> str | None:
        """Why no instance can be created; None when the last attempt succeeded or is longer ago than the pool would wait."""
        if self._last_create_failure is None or time.monotonic() - self._last_create_failure[0] > _FAILURE_VALID_SECONDS:
            return None
        return self._last_create_failure[1]

    @property
    def idle_count(self) -> int:
        """Number of warm instances that wait for a job."""
        return len(self._ready)

    @contextlib.contextmanager
    def count_running_job(self, memory_bytes: int) -> Iterator[None]:
        """Count a job and its memory limit while it runs, so that no refill takes the processors and memory that it needs."""
        self._running += 1
        self._reserved_bytes += memory_bytes
        try:
            yield
        finally:
            self._running -= 1
            self._reserved_bytes -= memory_bytes
            self._last_job = time.monotonic()
            self._changed.set()

    async def acquire(self, shape: InstanceShape) -> SandboxInstance:
        """Return an instance for one job. Raises Unavailable when none can be created."""
        while shape == self._shape and self._ready:
            instance = self._ready.popleft()
            self._changed.set()
            if is_alive(instance):
                return instance
            await instance.destroy()
        # A backend with a zygote forks a warm instance of any shape at once; with others the job would wait for imports it may not need.
        preload = self._settings.preload if self._settings.size and self._backend.preload_is_free else ()
        return await self._create(shape, preload)

    async def _create(self, shape: InstanceShape, preload: tuple[str, ...]) -> SandboxInstance:
        try:
            instance = await self._backend.create_instance(shape, preload, self._settings.boot_seconds)
        except Unavailable as error:
            self._last_create_failure = (time.monotonic(), error.detail)
            raise
        self._last_create_failure = None
        return instance

    async def close(self) -> None:
        """Stop refilling and destroy every waiting instance."""
        await self._refilling.stop()
        while self._ready:
            await self._ready.popleft().destroy()

    async def _refill(self) -> None:
        failures = 0
        while True:
            await self._wait_for_capacity()
            try:
                self._ready.append(await self._create(self._shape, self._settings.preload))
            except Unavailable as error:
                self._report_shortage(error.detail)
                delay = _RETRY_SECONDS[min(failures, len(_RETRY_SECONDS) - 1)]
                failures += 1
                await asyncio.sleep(delay)
            else:
                self.last_failure = None
                failures = 0

    def _report_shortage(self, reason: str) -> None:
        if reason != self.last_failure:
            self.on_shortage(reason)
        self.last_failure = reason

    async def _wait_for_capacity(self) -> None:
        """Return when the pool is short and creating an instance takes no processor and no memory that a job needs."""
        since = math.inf
        while True:
            self._changed.clear()
            wait = None
            if len(self._ready) < self._settings.size and self._running < self._processors:
                now = time.monotonic()
                since = min(since, now)
                wait = since + self._max_refill_delay - now
                if not self._running:
                    wait = min(wait, self._last_job + self._refill_delay - now)
                if wait <= 0:
                    needed = _IDLE_BYTES + self._reserved_bytes
                    if self._read_available_memory() >= needed:
                        return
                    self._report_shortage(
                        f"a warm sandbox is created when {needed // MIB} MiB of memory are available; lower privacy.pool_size"
                    )
                    wait = self._memory_poll_seconds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._changed.wait()


def is_alive(instance: SandboxInstance) -> bool:
    """Whether the guest still holds its end of the connection: an idle guest sends nothing, so anything to read means that it ended."""
    try:
        instance.sock.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
