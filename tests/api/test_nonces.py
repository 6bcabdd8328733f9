"""Single use, many at a time: a nonce is durable before its request is answered, and commits are shared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from pandacea.api.nonces import GroupCommitNonces, MemoryNonces, NonceRow
from pandacea.errors import Unavailable


class Table:
    """A slow table that counts its transactions."""

    def __init__(self) -> None:
        self.rows: set[tuple[str, str]] = set()
        self.batches: list[int] = []
        self.fail = False
        self.hold: asyncio.Event | None = None

    async def insert_many(self, rows: Sequence[NonceRow]) -> list[bool]:
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(0.01)
        if self.fail:
            raise OSError("disk gone")
        self.batches.append(len(rows))
        fresh = []
        for keyid, nonce, _ in rows:
            fresh.append((keyid, nonce) not in self.rows)
            self.rows.add((keyid, nonce))
        return fresh


async def test_many_waiters_share_a_commit() -> None:
    """A thousand requests that arrive together cost a few transactions, and each learns its own answer."""
    table = Table()
    nonces = GroupCommitNonces(table.insert_many)
    writer = asyncio.create_task(nonces.run())
    found = await asyncio.gather(*(nonces.spend("key", f"{n % 900}", 0) for n in range(1000)))
    assert (sum(found), len(table.rows), sum(table.batches)) == (900, 900, 1000)
    assert len(table.batches) <= 4
    writer.cancel()


async def test_a_batch_takes_along_what_the_loop_has_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that come in rounds of the event loop, one after the other, cost one transaction."""
    monkeypatch.setattr("pandacea.api.nonces.GATHER_SECONDS", 60)  # however slow the machine
    table = Table()
    nonces = GroupCommitNonces(table.insert_many)
    writer = asyncio.create_task(nonces.run())

    async def request(number: int) -> bool:
        for _ in range(number):
            await asyncio.sleep(0)
        return await nonces.spend("key", f"{number}", 0)

    assert all(await asyncio.gather(*(request(number) for number in range(20))))
    assert table.batches == [20]
    writer.cancel()


async def test_nobody_is_answered_before_the_row_is_durable() -> None:
    """While the transaction is open the request waits."""
    table = Table()
    table.hold = asyncio.Event()
    nonces = GroupCommitNonces(table.insert_many)
    writer = asyncio.create_task(nonces.run())
    waiting = asyncio.create_task(nonces.spend("key", "n", 0))
    done, _ = await asyncio.wait({waiting}, timeout=0.1)
    assert not done
    table.hold.set()
    assert await waiting
    writer.cancel()


async def test_a_failing_database_lets_nobody_in_and_is_tried_again() -> None:
    """503 for everybody in the batch; the next batch is written when the database is back."""
    table = Table()
    nonces = GroupCommitNonces(table.insert_many)
    writer = asyncio.create_task(nonces.run())
    table.fail = True
    answers = await asyncio.gather(*(nonces.spend("key", f"{n}", 0) for n in range(3)), return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers)
    table.fail = False
    assert await nonces.spend("key", "0", 0)
    writer.cancel()


async def test_a_waiter_that_leaves_disturbs_nobody() -> None:
    """A request given up while its nonce is written: the others get their answers, the nonce counts as used."""
    table = Table()
    nonces = GroupCommitNonces(table.insert_many)
    writer = asyncio.create_task(nonces.run())
    gone, stays = (asyncio.create_task(nonces.spend("key", name, 0)) for name in ("gone", "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await stays
    assert not await nonces.spend("key", "gone", 0)
    writer.cancel()


async def test_stopping_leaves_nobody_waiting() -> None:
    """When the writer ends, waiters and newcomers hear it at once."""
    table = Table()
    table.hold = asyncio.Event()
    nonces = GroupCommitNonces(table.insert_many)
    writer = asyncio.create_task(nonces.run())
    first = asyncio.create_task(nonces.spend("key", "1", 0))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(nonces.spend("key", "2", 0))
    await asyncio.sleep(0.02)
    writer.cancel()
    for task in (first, second, asyncio.create_task(nonces.spend("key", "3", 0))):
        with pytest.raises(Unavailable):
            await asyncio.wait_for(task, 1)


async def test_the_queue_is_bounded() -> None:
    """More than the database can take: refused at once, not piled up."""
    nonces = GroupCommitNonces(Table().insert_many)
    waiting = [asyncio.create_task(nonces.spend("key", f"{n}", 0)) for n in range(4096)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        await nonces.spend("key", "one too many", 0)
    for task in waiting:
        task.cancel()


async def test_strangers_nonces_are_bounded_and_never_forgotten_early() -> None:
    """A full table refuses; what has expired makes room; what could still be replayed stays."""
    now = 1000.0
    nonces = MemoryNonces(lambda: now, skew=30, max_rows=3)
    assert [await nonces.spend("k", f"{n}", 1060) for n in range(3)] == [True] * 3
    assert not await nonces.spend("k", "0", 1060)
    with pytest.raises(Unavailable):
        await nonces.spend("k", "3", 1060)
    now = 1090.0
    with pytest.raises(Unavailable):
        await nonces.spend("k", "3", 1160)
    now = 1092.0
    assert await nonces.spend("k", "3", 1160)
    assert await nonces.spend("k", "0", 1160), "expired beyond the skew: the verifier refuses its old request by time"
