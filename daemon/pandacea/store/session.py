"""The database: one writer, many readers, and a transaction that rolls back unless told to commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from pandacea.errors import BadConfig, Broken, Unavailable
from pandacea.store import driver

SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",
    # A nonce or a charge that was answered must survive the power going, not only a killed process.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=10000",
)


class Transaction:
    """A write in progress. Leaving its block without `commit` undoes everything."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Take over a connection on which a transaction has begun."""
        self.connection = connection
        self._after: list[Any] = []

    def after_commit(self, callback: Any) -> None:
        """Run `callback()` once the commit is durable: this is how memory follows the database, never the other way."""
        self._after.append(callback)

    async def commit(self) -> None:
        """Make it durable, then run the callbacks. Call once, last."""
        await self.connection.commit()
        for callback in self._after:
            callback()


class Database:
    """SQLite in WAL mode (default) or PostgreSQL, behind the same two verbs: `write` and `read`."""

    def __init__(self, url: URL, writer: AsyncEngine, reader: AsyncEngine) -> None:
        """Use `Database.open`."""
        self._aside: driver.Connection | None = None
        self.url = url
        self.dialect = writer.dialect.name
        self._writer = writer
        self._reader = reader
        self._lock = asyncio.Lock()

    @classmethod
    async def open(cls, address: str) -> Database:
        """Open the database at a SQLAlchemy URL (`sqlite+aiosqlite:///file` or `postgresql+asyncpg://...`).

        Raises:
            BadConfig: the URL cannot be read or names another database.
            Broken: the database cannot be reached or opened.
        """
        url = parse(address)
        if url.get_backend_name() == "sqlite":
            if url.database and url.database != ":memory:":
                Path(url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            writer, reader = _sqlite(url, "BEGIN IMMEDIATE", size=1), _sqlite(url, "BEGIN", size=4)
        else:
            writer = create_async_engine(url, pool_size=4, max_overflow=0, pool_pre_ping=True)
            reader = writer
        database = cls(url, writer, reader)
        try:
            async with database.read():
                pass
            if url.get_backend_name() == "sqlite":
                database._aside = await _open_aside(Path(url.database or ""))
        except (Unavailable, sqlite3.Error) as problem:
            await database.close()
            shown, why = url.render_as_string(hide_password=True), problem.__cause__ or problem
            raise Broken(
                f"The database {shown} cannot be opened: {why}. Check store.url and that the file or server is there."
            ) from problem
        return database

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """Begin a write. One at a time in this process: a node has one writer, so nothing waits on a database lock.

        Raises:
            Unavailable: the database did not answer; nothing was written.
        """
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._lock)
            connection = await self._connect(stack, self._writer)
            await connection.begin()
            yield Transaction(connection)
            # The connection's exit rolls back whatever was not committed.

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A consistent view for reading."""
        async with AsyncExitStack() as stack:
            yield await self._connect(stack, self._reader)

    async def alone(self, statement: str, values: tuple[Any, ...]) -> Sequence[Any]:
        """Run one statement of the driver's as a transaction of its own, beside the writer: durable when its rows come back.

        For tables that nothing else is written together with. In SQLite, where a transaction holds the whole file, they lie in a
        second file beside the first, and the statement goes past SQLAlchemy: one visit to the driver's thread, half the processor time.

        Raises:
            Unavailable: the database did not answer; nothing was written.
            sqlite3.Error, DBAPIError: it refused; nothing was written.
        """
        if self._aside is not None:
            return await self._aside.visit(lambda sqlite: sqlite.execute(statement, values).fetchall())  # type: ignore[no-any-return]
        async with AsyncExitStack() as stack:
            connection = await self._connect(stack, self._writer)
            async with connection.begin():
                found = await connection.exec_driver_sql(statement, values)
                return found.all() if found.returns_rows else []

    async def _connect(self, stack: AsyncExitStack, engine: AsyncEngine) -> AsyncConnection:
        try:
            return await stack.enter_async_context(engine.connect())
        except (OSError, DBAPIError) as problem:
            raise Unavailable(f"The node's database does not answer ({type(problem).__name__}).") from problem

    async def close(self) -> None:
        """Give every connection back."""
        if self._aside is not None:
            await self._aside.close()
        await self._writer.dispose()
        if self._reader is not self._writer:
            await self._reader.dispose()


def parse(address: str) -> URL:
    """Read a database URL; only SQLite and PostgreSQL through their asyncio drivers are served."""
    try:
        url = make_url(address)
    except ArgumentError as problem:
        raise BadConfig(
            f"store.url is {address!r}, which is no database URL; write sqlite+aiosqlite:///state/pandacea.db."
        ) from problem
    if url.drivername not in {"sqlite+aiosqlite", "postgresql+asyncpg"}:
        raise BadConfig(f"store.url uses {url.drivername!r}; allowed are sqlite+aiosqlite and postgresql+asyncpg.")
    return url


def _sqlite(url: URL, begin: str, *, size: int) -> AsyncEngine:
    engine = create_async_engine(
        url, pool_size=size, max_overflow=0, pool_timeout=60, connect_args={"async_creator_fn": driver.connect}
    )

    def connected(connection: Any, _record: object) -> None:
        # The driver's own BEGIN comes too late (a read first takes a shared lock, then fails to upgrade); we begin ourselves.
        connection.isolation_level = None
        _set_up(connection)

    def begun(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begun)
    return engine


async def _open_aside(main: Path) -> driver.Connection:
    """The file for what is written alone, beside the main one."""
    aside = main.with_name(f"{main.stem}-aside{main.suffix}")
    connection = await driver.connect(aside, isolation_level=None, check_same_thread=False)
    await connection.visit(_set_up)
    return connection


def _set_up(connection: Any) -> None:
    """What every SQLite connection is told first."""
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()
