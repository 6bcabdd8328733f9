"""Single use of signed requests: nonces in the database, many at a time in one transaction; strangers' nonces in bounded memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

from pandacea.errors import Unavailable

NonceRow = tuple[str, str, int]
"""(keyid, nonce, expires in Unix seconds)."""

MAX_WAITING: Final = 4096
"""Requests that may wait for a transaction; more are refused."""
GATHER_SECONDS: Final = 0.005
"""Seconds that a batch may grow: a commit costs as much as fifty rows."""

_STOPPING: Final = "The node is stopping; send the request again, newly signed."


class Nonces(Protocol):
    """Remembers which nonces were used."""

    async def spend(self, keyid: str, nonce: str, expires: int) -> bool:
        """Return whether (keyid, nonce) is new; if so, it is stored at least until `expires` before this returns."""
        ...


class GroupCommitNonces:
    """Group commit: nonces that arrive while a transaction commits are written together in the next one.

    A batch also takes the requests that the event loop already has at hand. A request is answered only after the transaction
    that holds its nonce is durable.
    """

    def __init__(self, insert_many: Callable[[Sequence[NonceRow]], Awaitable[Sequence[bool]]], max_batch: int = 512) -> None:
        """`insert_many` inserts rows in one transaction and returns, for each, whether it was new."""
        self._insert_many = insert_many
        self._max_batch = max_batch
        self._waiting: list[tuple[NonceRow, asyncio.Future[bool]]] = []
        self._wake = asyncio.Event()
        self._ended = False

    async def spend(self, keyid: str, nonce: str, expires: int) -> bool:
        """See `Nonces.spend`.

        Raises:
            Unavailable: too many wait, or the database failed: whether the nonce is new is not known, so the request must not be served.
        """
        if self._ended:
            raise Unavailable(_STOPPING)
        if len(self._waiting) >= MAX_WAITING:
            raise Unavailable("The node takes no more requests this second; try again.", retry_after=1)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(((keyid, nonce, expires), future))
        self._wake.set()
        return await future

    async def run(self) -> None:
        """Write batches until cancelled; run it as a task for as long as requests are served."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._waiting:
                    await self._gather()
                    batch, self._waiting = self._waiting[: self._max_batch], self._waiting[self._max_batch :]
                    await self._write(batch)
        finally:
            self._ended = True
            self._fail(self._waiting, _STOPPING)
            self._waiting = []

    async def _gather(self) -> None:
        """Let the event loop turn for as long as each turn brings more requests."""
        loop, seen = asyncio.get_running_loop(), 0
        end = loop.time() + GATHER_SECONDS
        while seen < len(self._waiting) < self._max_batch and loop.time() < end:
            seen = len(self._waiting)
            await asyncio.sleep(0)

    async def _write(self, batch: list[tuple[NonceRow, asyncio.Future[bool]]]) -> None:
        try:
            fresh = await self._insert_many([row for row, _ in batch])
        except asyncio.CancelledError:
            self._fail(batch, _STOPPING)
            raise
        except Exception as error:  # noqa: BLE001  # whatever the database raised, every waiter gets it and the writer goes on
            self._fail(batch, "The node's database did not take the request; try again.", error)
            return
        for (_, future), new in zip(batch, fresh, strict=True):
            if not future.done():
                future.set_result(new)

    @staticmethod
    def _fail(batch: list[tuple[NonceRow, asyncio.Future[bool]]], detail: str, cause: Exception | None = None) -> None:
        for _, future in batch:
            if not future.done():
                failure = Unavailable(detail, retry_after=1)
                failure.__cause__ = cause
                future.set_exception(failure)


class MemoryNonces:
    """Nonces of people without a lease, in memory: lost at a restart; when the table is full, requests are refused."""

    def __init__(self, now: Callable[[], float], skew: int, max_rows: int = 10_000) -> None:
        """`now` returns Unix seconds; `skew`: seconds for which an expired request is still accepted."""
        self._now = now
        self._skew = skew
        self._max_rows = max_rows
        self._rows: dict[tuple[str, str], int] = {}

    async def spend(self, keyid: str, nonce: str, expires: int) -> bool:
        """See `Nonces.spend`.

        Raises:
            Unavailable: the table is full of nonces that are still valid.
        """
        if (keyid, nonce) in self._rows:
            return False
        if len(self._rows) >= self._max_rows:
            limit = self._now() - self._skew - 1
            self._rows = {key: until for key, until in self._rows.items() if until >= limit}
            if len(self._rows) >= self._max_rows:
                raise Unavailable("Too many requests without a lease at once; try again in a minute.", retry_after=60)
        self._rows[keyid, nonce] = expires
        return True
