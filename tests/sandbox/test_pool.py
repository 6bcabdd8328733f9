"""The pool of warm boxes: which job gets one, and when another is made."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from pandacea.domain.limits import MIB
from pandacea.errors import Unavailable
from pandacea.flows.ports import SandboxIdentity
from pandacea.sandbox.boxes import Box, BoxShape
from pandacea.sandbox.pool import Pool
from pandacea.sandbox.settings import PoolSettings
from tests.sandbox.harness import LIMITS, with_caps

SHAPE = BoxShape.of(LIMITS)
OTHER = BoxShape.of(with_caps(pids=32))
FOREVER = 3600.0
IDLE = 300 * MIB
"""What an idle warm box may hold."""
PLENTY = 1 << 40


class FakeBox:
    """A connected socket."""

    watched_memory_bytes = 0

    def __init__(self, warm: bool) -> None:
        self.sock, self.guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.warm = warm
        self.out_of_memory = asyncio.Event()
        self.destroyed = False

    async def host_failure(self) -> str | None:
        return None

    async def destroy(self) -> None:
        self.destroyed = True
        self.sock.close()
        self.guest.close()


class FakeMaker:
    """Makes boxes at once, or fails as often as told."""

    warm_at_once = False

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.uids: range | None = None
        self.leaves_no_access_time = False
        self.made: list[FakeBox] = []
        self.fail = 0

    async def open(self) -> SandboxIdentity:
        return SandboxIdentity("fake", "", "")

    async def make(self, shape: BoxShape, preload: tuple[str, ...], boot_seconds: float) -> Box:
        if self.fail:
            self.fail -= 1
            raise Unavailable("no box today")
        self.made.append(FakeBox(bool(preload)))
        return self.made[-1]

    async def close(self) -> None:
        for box in self.made:
            await box.destroy()


def pool(
    maker: FakeMaker, *, size: int = 2, processors: int = 2, patience: float = FOREVER, memory: Callable[[], int] = lambda: PLENTY
) -> Pool:
    """A started pool that waits for no quiet."""
    made = Pool(maker, PoolSettings(size=size, limits=LIMITS), processors, quiet=0, patience=patience, memory=memory, again=0)
    made.start()
    return made


async def until_idle(boxes: Pool, number: int) -> None:
    """Wait for so many warm boxes."""
    async with asyncio.timeout(5):
        while boxes.idle < number:
            await asyncio.sleep(0)


async def settle() -> None:
    """Let everything that is ready run: nothing here waits for anything but the loop."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_a_short_job_has_the_machine_to_itself() -> None:
    """While it runs no box is made for the next one; when it is over, one is."""
    maker = FakeMaker()
    boxes = pool(maker)
    await until_idle(boxes, 2)
    with boxes.running(LIMITS.memory_bytes):
        box = await boxes.take(SHAPE)
        await settle()
        assert len(maker.made) == 2
    await until_idle(boxes, 2)
    assert len(maker.made) == 3
    await box.destroy()
    await boxes.close()


async def test_a_long_job_does_not_keep_the_pool_short() -> None:
    """After the pool's patience another box is made beside it, on a processor of its own."""
    maker = FakeMaker()
    boxes = pool(maker, patience=0)
    await until_idle(boxes, 2)
    with boxes.running(LIMITS.memory_bytes):
        await boxes.take(SHAPE)
        await until_idle(boxes, 2)
    await boxes.close()
    await maker.close()


async def test_a_refill_never_takes_the_last_processor() -> None:
    """With as many jobs as processors none is made, however long they run."""
    maker = FakeMaker()
    boxes = pool(maker, patience=0, processors=1)
    await until_idle(boxes, 2)
    with boxes.running(LIMITS.memory_bytes):
        await boxes.take(SHAPE)
        await settle()
        assert len(maker.made) == 2
    await until_idle(boxes, 2)
    await boxes.close()
    await maker.close()


async def test_a_refill_never_takes_the_memory_that_a_job_was_promised() -> None:
    """While one runs, a box is made only if the job could still fill its whole limit beside it."""
    for missing, more in ((1, 0), (0, 1)):
        maker = FakeMaker()
        boxes = pool(maker, patience=0, memory=lambda missing=missing: IDLE + LIMITS.memory_bytes - missing)  # type: ignore[misc]
        await until_idle(boxes, 2)
        with boxes.running(LIMITS.memory_bytes):
            await boxes.take(SHAPE)
            await settle()
            assert len(maker.made) == 2 + more
        await until_idle(boxes, 2)
        await boxes.close()
        await maker.close()


async def test_a_machine_without_room_starts_computations_cold_and_says_why() -> None:
    """The pool stays short until others free memory; a sentence says how much it waits for."""
    maker = FakeMaker()
    free = IDLE - 1
    boxes = pool(maker, size=1, memory=lambda: free)
    said: list[str] = []
    boxes.on_short = said.append
    await settle()
    assert maker.made == []
    assert said == ["a warm box is made when 300 MiB of memory are available; lower privacy.pool_size"], "once, not at every look"
    assert boxes.last_failure == said[0]
    with boxes.running(LIMITS.memory_bytes):
        cold = await boxes.take(SHAPE)
    assert not cold.warm
    free = IDLE
    await until_idle(boxes, 1)
    assert boxes.last_failure is None
    await boxes.close()
    await maker.close()


async def test_after_a_jobs_end_there_is_a_moments_quiet() -> None:
    """Its answer goes out before the next box is made."""
    maker = FakeMaker()
    boxes = Pool(maker, PoolSettings(size=1, limits=LIMITS), 2, quiet=FOREVER, patience=FOREVER)
    boxes.start()
    await until_idle(boxes, 1)  # at the start nothing ended yet
    with boxes.running(LIMITS.memory_bytes):
        await boxes.take(SHAPE)
    await settle()
    assert len(maker.made) == 1
    await boxes.close()
    await maker.close()


async def test_other_limits_or_an_empty_pool_mean_a_cold_box() -> None:
    """A job never gets limits it did not ask for, and never waits for imports it may not need."""
    maker = FakeMaker()
    boxes = pool(maker, size=1)
    await until_idle(boxes, 1)
    with boxes.running(LIMITS.memory_bytes):
        other = await boxes.take(OTHER)
        first = await boxes.take(SHAPE)
        second = await boxes.take(SHAPE)
    assert [box.warm for box in (other, first, second)] == [False, True, False]
    await boxes.close()
    await maker.close()


async def test_a_dead_guest_is_not_handed_out() -> None:
    """A box whose guest ended while it waited is destroyed, and the job gets another."""
    maker = FakeMaker()
    boxes = pool(maker, size=1, processors=1)
    await until_idle(boxes, 1)
    maker.made[0].guest.close()
    with boxes.running(LIMITS.memory_bytes):
        box = await boxes.take(SHAPE)
    assert maker.made[0].destroyed
    assert not box.warm
    await boxes.close()
    await maker.close()


async def test_a_failed_refill_is_told_and_tried_again() -> None:
    """`last_failure` says why there is no warm box; jobs start cold meanwhile."""
    maker = FakeMaker()
    maker.fail = 1
    boxes = pool(maker)
    await settle()
    assert boxes.last_failure == "no box today"
    with boxes.running(LIMITS.memory_bytes):
        assert not (await boxes.take(SHAPE)).warm
    await until_idle(boxes, 2)
    assert boxes.last_failure is None
    await boxes.close()
    await maker.close()
