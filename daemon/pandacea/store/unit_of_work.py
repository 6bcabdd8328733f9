"""The database as the flows see it: `flows.unit_of_work.Database` over a `DatabaseEngine`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncConnection

from pandacea.flows.unit_of_work import Channel
from pandacea.store import nonces
from pandacea.store.audit import AuditTable
from pandacea.store.code import CodeTable
from pandacea.store.commitments import CommitmentTable
from pandacea.store.database_engine import DatabaseEngine, WriteTransaction
from pandacea.store.generations import GenerationTable
from pandacea.store.jobs import JobTable
from pandacea.store.outbox import OutboxTable
from pandacea.store.uploads import UploadTable


class SqlReadSession:
    """A read that sees one state of the database."""

    def __init__(self, connection: AsyncConnection, channels: Collection[Channel], webhook_events: Collection[str]) -> None:
        """Read the tables through one connection."""
        self.jobs = JobTable(connection)
        self.uploads = UploadTable(connection)
        self.code = CodeTable(connection)
        self.outbox = OutboxTable(connection, channels, webhook_events)
        self.generation = GenerationTable(connection)
        self.commitments = CommitmentTable(connection)
        self.audit = AuditTable(connection)


class SqlUnitOfWork(SqlReadSession):
    """A transaction, rolled back unless committed."""

    def __init__(self, tx: WriteTransaction, channels: Collection[Channel], webhook_events: Collection[str]) -> None:
        """Read and write the tables through one transaction."""
        super().__init__(tx.connection, channels, webhook_events)
        self.tx = tx

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run `callback` once the commit is durable."""
        self.tx.after_commit(callback)

    async def commit(self) -> None:
        """Commit durably, then run the callbacks; call it once, last."""
        await self.tx.commit()


class SqlDatabase:
    """`flows.unit_of_work.Database` on SQLite or PostgreSQL."""

    def __init__(
        self, database: DatabaseEngine, channels: Collection[Channel] = frozenset(Channel), webhook_events: Collection[str] = ()
    ) -> None:
        """Read and write through the node's one engine.

        `channels`: those that this node delivers on, messages for others are not stored. `webhook_events`: types of events that its
        webhook hears; empty: all.
        """
        self._database = database
        self._channels = channels
        self._webhook_events = webhook_events

    @asynccontextmanager
    async def unit_of_work(self) -> AsyncIterator[SqlUnitOfWork]:
        """Open a transaction; it is rolled back unless committed."""
        async with self._database.write_transaction() as tx:
            yield SqlUnitOfWork(tx, self._channels, self._webhook_events)

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[SqlReadSession]:
        """Open a read that sees one state of the database."""
        async with self._database.read_connection() as connection:
            yield SqlReadSession(connection, self._channels, self._webhook_events)

    async def spend_nonces(self, rows: Sequence[tuple[str, str, int]]) -> list[bool]:
        """Insert (keyid, nonce, expires) rows durably; for each, True when the nonce was new."""
        return await nonces.spend_nonces(self._database, rows)

    async def prune_nonces(self, before: int) -> None:
        """Delete nonces that expired before a time (Unix seconds)."""
        await nonces.prune_nonces(self._database, before)
