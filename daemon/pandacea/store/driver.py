"""SQLite's driver with one call to its thread for each statement.

aiosqlite makes four calls of an ordinary query (cursor, execute, fetch, close). Each wakes a thread, which then waits for the
interpreter's lock while the event loop is busy; meanwhile the transaction occupies the database's one writer.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, TypeVar

import aiosqlite

from pandacea.store.bulk import DbRow

T = TypeVar("T")


async def connect(*arguments: Any, **options: Any) -> SqliteConnection:
    """Connect as `aiosqlite.connect` does, for SQLAlchemy's `async_creator_fn`."""
    connection = SqliteConnection(lambda: sqlite3.connect(*arguments, **options), iter_chunk_size=64)
    connection._thread.daemon = True  # noqa: SLF001  # as SQLAlchemy does for a connection that it makes itself
    await connection
    return connection


class SqliteConnection(aiosqlite.Connection):
    """A connection whose cursors fetch all rows when they execute."""

    _rollback_due = False
    """Whether a caller was cancelled while the thread worked for it: what that work did shows only after the next call."""

    def cursor(self) -> SqliteCursor:  # type: ignore[override]  # what SQLAlchemy uses of a cursor, and no more
        """Return a cursor without calling the thread."""
        return SqliteCursor(self)

    async def run_on_thread(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on the connection's thread, after everything that was passed to it before."""
        try:
            result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]  # aiosqlite's own, FIFO
        except asyncio.CancelledError:
            self._rollback_due = True
            raise
        return result

    async def commit(self) -> None:
        """Commit the current transaction."""
        await self.run_on_thread(sqlite3.Connection.commit)

    async def rollback(self) -> None:
        """Roll back the current transaction, if there is one: the pool calls this after every use."""
        if self._rollback_due or self.in_transaction:
            await self.run_on_thread(sqlite3.Connection.rollback)
            self._rollback_due = False


class SqliteCursor:
    """The part of a cursor that SQLAlchemy's adapter uses; results are fetched whole, as that adapter does itself."""

    arraysize = 1

    def __init__(self, connection: SqliteConnection) -> None:
        """Open nothing before a statement is executed."""
        self._connection = connection
        self._rows: list[DbRow] = []
        self.description: object = None
        self.rowcount = -1
        self.lastrowid: int | None = None

    async def __aenter__(self) -> Self:
        """Return the cursor itself."""
        return self

    async def execute(self, statement: str, parameters: Sequence[object] = ()) -> Self:
        """Execute a statement and fetch its rows."""
        return await self._run(lambda connection: connection.execute(statement, parameters))

    async def executemany(self, statement: str, parameters: Iterable[Sequence[object]]) -> Self:
        """Execute a statement for many rows of parameters."""
        return await self._run(lambda connection: connection.executemany(statement, parameters))

    async def _run(self, statement: Callable[[sqlite3.Connection], sqlite3.Cursor]) -> Self:
        def whole(connection: sqlite3.Connection) -> None:
            cursor = statement(connection)
            self.description, self.rowcount, self.lastrowid = cursor.description, cursor.rowcount, cursor.lastrowid
            self._rows = cursor.fetchall() if cursor.description else []
            cursor.close()

        await self._connection.run_on_thread(whole)
        return self

    async def fetchall(self) -> list[DbRow]:
        """Return the rows that were fetched, once."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Do nothing: the statement was closed when it was executed."""
