"""The database as the journeys see it: `flows.ports.Books` over `session.Database`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from pandacea.flows.books import Channel
from pandacea.store import nonces
from pandacea.store.code import Submissions
from pandacea.store.jobs import Jobs
from pandacea.store.outbox import Outboxes
from pandacea.store.session import Database, Transaction
from pandacea.store.uploads import Uploads


class View:
    """A consistent look at the database."""

    def __init__(self, connection: AsyncConnection, channels: Collection[Channel]) -> None:
        """Look through one connection."""
        self.jobs = Jobs(connection)
        self.uploads = Uploads(connection)
        self.code = Submissions(connection)
        self.outbox = Outboxes(connection, channels)


class Work(View):
    """A transaction, undone unless committed."""

    def __init__(self, tx: Transaction, channels: Collection[Channel]) -> None:
        """Write through one transaction."""
        super().__init__(tx.connection, channels)
        self.tx = tx

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run `callback` when the commit is durable."""
        self.tx.after_commit(callback)

    async def commit(self) -> None:
        """Make it durable."""
        await self.tx.commit()


class SqlBooks:
    """`flows.ports.Books` on SQLite or PostgreSQL."""

    def __init__(self, database: Database, channels: Collection[Channel] = frozenset(Channel)) -> None:
        """Share the node's one database. `channels`: those that this node delivers on; messages for others are not kept."""
        self._database = database
        self._channels = channels

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Work]:
        """Begin a transaction."""
        async with self._database.write() as tx:
            yield Work(tx, self._channels)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[View]:
        """Look."""
        async with self._database.read() as connection:
            yield View(connection, self._channels)

    async def spend_nonces(self, rows: Sequence[tuple[str, str, int]]) -> list[bool]:
        """Use (keyid, nonce, expires) rows up, durably; for each, whether it was new."""
        return await nonces.spend(self._database, rows)

    async def prune_nonces(self, before: int) -> None:
        """Forget those that expired before a time (Unix seconds)."""
        await nonces.prune(self._database, before)
