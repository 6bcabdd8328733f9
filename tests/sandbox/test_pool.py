"""The pool of warm boxes: which job gets one, and when another is made."""

from __future__ import annotations

import asyncio
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
"""What an idle warm box may hold."""
PLENTY_BYTES = 1 << 40


class FakeInstance:
    """A connected socket."""

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
    """Makes boxes at once, or fails as often as told."""

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
            raise Unavailable("no box today")
        self.created.append(FakeInstance(bool(preload)))
        return self.created[-1]

    def open_input(self, path: Path) -> int:
        raise AssertionError("no job runs here")

    async def close(self) -> None:
        for box in self.created:
            await box.destroy()


def pool(
    backend: FakeBackend,
    *,
    size: int = 2,
    processors: int = 2,
    max_refill_delay: float = FOREVER,
    read_available_memory: Callable[[], int] = lambda: PLENTY_BYTES,
) -> InstancePool:
    """A started pool that waits for no quiet."""
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


async def until_idle(boxes: InstancePool, number: int) -> None:
    """Wait for so many warm boxes."""
    async with asyncio.timeout(5):
        while boxes.idle_count < number:
            await asyncio.sleep(0)


async def settle() -> None:
    """Let everything that is ready run: nothing here waits for anything but the loop."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_short_job_has_the_machine_to_itself() -> None:
    """While it runs no box is made for the next one; when it is over, one is."""
    maker = FakeBackend()
    boxes = pool(maker)
    await until_idle(boxes, 2)
    with boxes.count_running_job(LIMITS.memory_bytes):
        box = await boxes.acquire(SHAPE)
        await settle()
        assert len(maker.created) == 2
    await until_idle(boxes, 2)
    assert len(maker.created) == 3
    await box.destroy()
    await boxes.close()


async def test_a_long_job_does_not_keep_the_pool_short() -> None:
    """After the pool's patience another box is made beside it, on a processor of its own."""
    maker = FakeBackend()
    boxes = pool(maker, max_refill_delay=0)
    await until_idle(boxes, 2)
    with boxes.count_running_job(LIMITS.memory_bytes):
        await boxes.acquire(SHAPE)
        await until_idle(boxes, 2)
    await boxes.close()
    await maker.close()


async def test_a_refill_never_takes_the_last_processor() -> None:
    """With as many jobs as processors none is made, however long they run."""
    maker = FakeBackend()
    boxes = pool(maker, max_refill_delay=0, processors=1)
    await until_idle(boxes, 2)
    with boxes.count_running_job(LIMITS.memory_bytes):
        await boxes.acquire(SHAPE)
        await settle()
        assert len(maker.created) == 2
    await until_idle(boxes, 2)
    await boxes.close()
    await maker.close()


async def test_a_refill_never_takes_the_memory_that_a_job_was_promised() -> None:
    """While one runs, a box is made only if the job could still fill its whole limit beside it."""
    for missing, more in ((1, 0), (0, 1)):
        maker = FakeBackend()
        available = IDLE_BYTES + LIMITS.memory_bytes - missing
        boxes = pool(maker, max_refill_delay=0, read_available_memory=lambda available=available: available)  # type: ignore[misc]
        await until_idle(boxes, 2)
        with boxes.count_running_job(LIMITS.memory_bytes):
            await boxes.acquire(SHAPE)
            await settle()
            assert len(maker.created) == 2 + more
        await until_idle(boxes, 2)
        await boxes.close()
        await maker.close()


async def test_a_machine_without_room_starts_computations_cold_and_says_why() -> None:
    """The pool stays short until others free memory; a sentence says how much it waits for."""
    maker = FakeBackend()
    free = IDLE_BYTES - 1
    boxes = pool(maker, size=1, read_available_memory=lambda: free)
    said: list[str] = []
    boxes.on_shortage = said.append
    await settle()
    assert maker.created == []
    assert said == ["a warm sandbox is created when 300 MiB of memory are available; lower privacy.pool_size"], (
        "once, not at every look"
    )
    assert boxes.last_failure == said[0]
    with boxes.count_running_job(LIMITS.memory_bytes):
        cold = await boxes.acquire(SHAPE)
    assert not cold.preloaded
    free = IDLE_BYTES
    await until_idle(boxes, 1)
    assert boxes.last_failure is None
    await boxes.close()
    await maker.close()


async def test_after_a_jobs_end_there_is_a_moments_quiet() -> None:
    """Its answer goes out before the next box is made."""
    maker = FakeBackend()
    boxes = InstancePool(maker, PoolSettings(size=1, limits=LIMITS), 2, refill_delay=FOREVER, max_refill_delay=FOREVER)
    boxes.start()
    await until_idle(boxes, 1)  # at the start nothing ended yet
    with boxes.count_running_job(LIMITS.memory_bytes):
        await boxes.acquire(SHAPE)
    await settle()
    assert len(maker.created) == 1
    await boxes.close()
    await maker.close()


async def test_other_limits_or_an_empty_pool_mean_a_cold_box() -> None:
    """A job never gets limits it did not ask for, and never waits for imports it may not need."""
    maker = FakeBackend()
    boxes = pool(maker, size=1)
    await until_idle(boxes, 1)
    with boxes.count_running_job(LIMITS.memory_bytes):
        other = await boxes.acquire(OTHER)
        first = await boxes.acquire(SHAPE)
        second = await boxes.acquire(SHAPE)
    assert [box.preloaded for box in (other, first, second)] == [False, True, False]
    await boxes.close()
    await maker.close()


async def test_a_dead_guest_is_not_handed_out() -> None:
    """A box whose guest ended while it waited is destroyed, and the job gets another."""
    maker = FakeBackend()
    boxes = pool(maker, size=1, processors=1)
    await until_idle(boxes, 1)
    maker.created[0].guest.close()
    with boxes.count_running_job(LIMITS.memory_bytes):
        box = await boxes.acquire(SHAPE)
    assert maker.created[0].destroyed
    assert not box.preloaded
    await boxes.close()
    await maker.close()


async def test_a_failed_refill_is_told_and_tried_again() -> None:
    """`last_failure` says why there is no warm box; jobs start cold meanwhile."""
    maker = FakeBackend()
    maker.fail = 1
    boxes = pool(maker)
    await settle()
    assert boxes.last_failure == "no box today"
    with boxes.count_running_job(LIMITS.memory_bytes):
        assert not (await boxes.acquire(SHAPE)).preloaded
    await until_idle(boxes, 2)
    assert boxes.last_failure is None
    await boxes.close()
    await maker.close()
