"""The pool of warm instances: which job gets one, and when another is created."""

from __future__ import annotations

import asyncio
import functools
import socket
from collections.abc import Callable
from pathlib import Path

from pandacea.domain.limits import MIB
from pandacea.errors import Unavailable
from pandacea.flows.ports import SandboxIdentity
from pandacea.sandbox.backend import InstanceShape, SandboxInstance
from pandacea.sandbox.pool import InstancePool
from pandacea.sandbox.settings import PoolSettings
from tests.sandbox.harness import LIMITS, with_caps

SHAPE = InstanceShape.from_limits(LIMITS)
OTHER = InstanceShape.from_limits(with_caps(pids=32))
FOREVER = 3600.0
IDLE_BYTES = 300 * MIB
"""Bytes that an idle warm instance may hold."""
PLENTY_BYTES = 1 << 40


class FakeInstance:
    """An instance that is nothing but a connected socket."""

    watched_memory_bytes = 0

    def __init__(self, preloaded: bool) -> None:
        self.sock, self.guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.preloaded = preloaded
        self.out_of_memory = asyncio.Event()
        self.destroyed = False

    async def host_failure(self) -> str | None:
        return None

    async def destroy(self) -> None:
        self.destroyed = True
        self.sock.close()
        self.guest.close()


class FakeBackend:
    """Creates instances at once, or fails `fail` times."""

    preload_is_free = False

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.uids: range | None = None
        self.leaves_no_access_time = False
        self.created: list[FakeInstance] = []
        self.fail = 0

    async def open(self) -> SandboxIdentity:
        return SandboxIdentity("fake", "", "")

    async def create_instance(self, shape: InstanceShape, preload: tuple[str, ...], boot_seconds: float) -> SandboxInstance:
        if self.fail:
            self.fail -= 1
            raise Unavailable("no sandbox today")
        self.created.append(FakeInstance(bool(preload)))
        return self.created[-1]

    def open_input(self, path: Path) -> int:
        raise AssertionError("no job runs here")

    async def close(self) -> None:
        for instance in self.created:
            await instance.destroy()


def start_pool(
    backend: FakeBackend,
    *,
    size: int = 2,
    processors: int = 2,
    max_refill_delay: float = FOREVER,
    read_available_memory: Callable[[], int] = lambda: PLENTY_BYTES,
) -> InstancePool:
    """Start a pool that refills without a delay after a job."""
    made = InstancePool(
        backend,
        PoolSettings(size=size, limits=LIMITS),
        processors,
        refill_delay=0,
        max_refill_delay=max_refill_delay,
        read_available_memory=read_available_memory,
        memory_poll_seconds=0,
    )
    made.start()
    return made


def is_preloaded(instance: SandboxInstance) -> bool:
    """Whether an instance was created with modules to import ahead: whether it is warm."""
    assert isinstance(instance, FakeInstance)
    return instance.preloaded


async def until_idle(pool: InstancePool, number: int) -> None:
    """Wait until the pool has `number` warm instances."""
    async with asyncio.timeout(5):
        while pool.idle_count < number:
            await asyncio.sleep(0)


async def settle() -> None:
    """Let everything that is ready run: nothing here waits for anything but the loop."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_short_job_has_the_machine_to_itself() -> None:
    """While it runs no instance is created for the next one; when it is over, one is."""
    backend = FakeBackend()
    pool = start_pool(backend)
    await until_idle(pool, 2)
    with pool.count_running_job(LIMITS.memory_bytes):
        instance = await pool.acquire(SHAPE)
        await settle()
        assert len(backend.created) == 2
    await until_idle(pool, 2)
    assert len(backend.created) == 3
    await instance.destroy()
    await pool.close()


async def test_a_long_job_does_not_keep_the_pool_short() -> None:
    """After `max_refill_delay` another instance is created beside it, on a processor of its own."""
    backend = FakeBackend()
    pool = start_pool(backend, max_refill_delay=0)
    await until_idle(pool, 2)
    with pool.count_running_job(LIMITS.memory_bytes):
        await pool.acquire(SHAPE)
        await until_idle(pool, 2)
    await pool.close()
    await backend.close()


async def test_a_refill_never_takes_the_last_processor() -> None:
    """With as many jobs as processors none is made, however long they run."""
    backend = FakeBackend()
    pool = start_pool(backend, max_refill_delay=0, processors=1)
    await until_idle(pool, 2)
    with pool.count_running_job(LIMITS.memory_bytes):
        await pool.acquire(SHAPE)
        await settle()
        assert len(backend.created) == 2
    await until_idle(pool, 2)
    await pool.close()
    await backend.close()


async def test_a_refill_never_takes_the_memory_that_a_job_was_promised() -> None:
    """While one runs, an instance is created only if the job could still fill its whole limit beside it."""
    for missing, more in ((1, 0), (0, 1)):
        backend = FakeBackend()
        available = functools.partial(int, IDLE_BYTES + LIMITS.memory_bytes - missing)
        pool = start_pool(backend, max_refill_delay=0, read_available_memory=available)
        await until_idle(pool, 2)
        with pool.count_running_job(LIMITS.memory_bytes):
            await pool.acquire(SHAPE)
            await settle()
            assert len(backend.created) == 2 + more
        await until_idle(pool, 2)
        await pool.close()
        await backend.close()


async def test_a_machine_without_room_starts_computations_cold_and_says_why() -> None:
    """The pool stays short until others free memory; the reason says how much it waits for."""
    backend = FakeBackend()
    free = IDLE_BYTES - 1
    pool = start_pool(backend, size=1, read_available_memory=lambda: free)
    said: list[str] = []
    pool.on_shortage = said.append
    await settle()
    assert backend.created == []
    assert said == ["a warm sandbox is created when 300 MiB of memory are available; lower privacy.pool_size"], (
        "once, not at every check"
    )
    assert pool.last_failure == said[0]
    with pool.count_running_job(LIMITS.memory_bytes):
        cold = await pool.acquire(SHAPE)
    assert not is_preloaded(cold)
    free = IDLE_BYTES
    await until_idle(pool, 1)
    assert pool.last_failure is None
    await pool.close()
    await backend.close()


async def test_after_a_jobs_end_there_is_a_moments_quiet() -> None:
    """Its answer is sent before the next instance is created."""
    backend = FakeBackend()
    pool = InstancePool(backend, PoolSettings(size=1, limits=LIMITS), 2, refill_delay=FOREVER, max_refill_delay=FOREVER)
    pool.start()
    await until_idle(pool, 1)  # at the start nothing ended yet
    with pool.count_running_job(LIMITS.memory_bytes):
        await pool.acquire(SHAPE)
    await settle()
    assert len(backend.created) == 1
    await pool.close()
    await backend.close()


async def test_other_limits_or_an_empty_pool_mean_a_cold_box() -> None:
    """A job never gets limits it did not ask for, and never waits for imports it may not need."""
    backend = FakeBackend()
    pool = start_pool(backend, size=1)
    await until_idle(pool, 1)
    with pool.count_running_job(LIMITS.memory_bytes):
        other = await pool.acquire(OTHER)
        first = await pool.acquire(SHAPE)
        second = await pool.acquire(SHAPE)
    assert [is_preloaded(instance) for instance in (other, first, second)] == [False, True, False]
    await pool.close()
    await backend.close()


async def test_a_dead_guest_is_not_handed_out() -> None:
    """An instance whose guest ended while it waited is destroyed, and the job gets another."""
    backend = FakeBackend()
    pool = start_pool(backend, size=1, processors=1)
    await until_idle(pool, 1)
    backend.created[0].guest.close()
    with pool.count_running_job(LIMITS.memory_bytes):
        instance = await pool.acquire(SHAPE)
    assert backend.created[0].destroyed
    assert not is_preloaded(instance)
    await pool.close()
    await backend.close()


async def test_a_failed_refill_is_told_and_tried_again() -> None:
    """`last_failure` says why there is no warm instance; jobs start cold meanwhile."""
    backend = FakeBackend()
    backend.fail = 1
    pool = start_pool(backend)
    await settle()
    assert pool.last_failure == "no sandbox today"
    with pool.count_running_job(LIMITS.memory_bytes):
        assert not is_preloaded(await pool.acquire(SHAPE))
    await until_idle(pool, 2)
    assert pool.last_failure is None
    await pool.close()
    await backend.close()
