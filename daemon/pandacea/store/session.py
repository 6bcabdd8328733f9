"""The database: one writer, many readers, and a transaction that rolls back unless told to commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pandacea.errors import BadConfig, Broken, Unavailable
from pandacea.store import driver, engines
from pandacea.store.hold import Session, TakenError, hold_file, patiently

log = structlog.get_logger(__name__)

PASSING: Final = ("08", "25006", "40", "53", "57", "58")
"""PostgreSQL's classes and codes of errors that are the server's condition, not our statement's: connection, read-only standby,
rollback, resources, shutdown, system."""


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


class Unreachable(Broken):
    """The database server is not there (yet)."""


class Database:
    """SQLite in WAL mode (default) or PostgreSQL, behind the same two verbs: `write` and `read`."""

    def __init__(self, url: URL, writer: AsyncEngine, reader: AsyncEngine) -> None:
        """Use `Database.open`."""
        self.url = url
        self.dialect = writer.dialect.name
        self.trouble: str | None = None
        """Why the last transaction failed, if it was the database that failed; None: it answers."""
        self._writer = writer
        self._reader = reader
        self._lock = asyncio.Lock()
        self._aside: driver.Connection | AsyncEngine | None = None
        """For `autocommit`: SQLite's second file, PostgreSQL's second connection that writes."""
        self._session: Session | None = None
        self._stack = AsyncExitStack()

    @classmethod
    async def open(cls, address: str, *, password: str | None = None, alone: bool = False) -> Database:
        """Open the database at a SQLAlchemy URL (`sqlite+aiosqlite:///file` or `postgresql+asyncpg://...`).

        Args:
            address: the URL.
            password: PostgreSQL's, instead of one in the URL.
            alone: hold it as the one node that writes to it; call `claim` once its schema is the newest.

        Raises:
            BadConfig: the URL cannot be read or names another database.
            Broken: the database cannot be opened, or (`alone`) another node holds it; Unreachable: there is no server.
        """
        url = parse(address)
        session = None
        if url.get_backend_name() == "sqlite":
            if url.database and url.database != ":memory:":
                Path(url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            writer, reader, aside = engines.sqlite(url, "BEGIN IMMEDIATE", size=1), engines.sqlite(url, "BEGIN", size=4), None
        else:
            url = url if password is None else url.set(password=password)
            session = Session(lambda: engines.connection(url)) if alone else None
            writer, reader, aside = engines.postgresql(url, session)
        database = cls(url, writer, reader)
        database._session, database._aside = session, aside
        if aside is not None:
            database._stack.push_async_callback(aside.dispose)
        try:
            await database._begin(alone=alone)
        except BaseException:
            await database.close()
            raise
        return database

    @property
    def shown(self) -> str:
        """Its URL without the password."""
        return self.url.render_as_string(hide_password=True)

    async def _begin(self, *, alone: bool) -> None:
        try:
            async with self.read():
                pass
            if alone and self._session is not None:
                await patiently(self._take, self.shown)
            elif alone and self.url.database not in {None, "", ":memory:"}:
                await self._stack.enter_async_context(hold_file(Path(f"{self.url.database}.lock"), self.shown))
            if self.dialect == "sqlite":
                self._aside = await engines.sqlite_aside(Path(self.url.database or ""))
                self._stack.push_async_callback(self._aside.close)
        except (Unavailable, sqlite3.Error) as problem:
            cause = problem.__cause__ or problem
            kind = Unreachable if _absent(cause) else Broken
            raise kind(
                f"The database {self.shown} cannot be opened: {cause}. Check store.url and that the file or server is there."
            ) from problem

    async def _take(self) -> None:
        try:
            async with self.write() as tx:
                await tx.connection.exec_driver_sql("SELECT 1")
        except Unavailable as problem:
            if isinstance(problem.__cause__, TakenError):
                raise problem.__cause__ from None
            raise

    async def claim(self) -> None:
        """Note in the database that this process holds it, so that it notices if ever another did meanwhile."""
        if self._session is not None:
            async with self.write() as tx:
                await self._session.claim(tx.connection.exec_driver_sql)
                await tx.commit()

    async def superseded(self) -> None:
        """Wait for as long as no other node wrote here, which is for ever unless the connection was lost for a while.

        Raises:
            Broken: another did.
        """
        await (asyncio.Event() if self._session is None else self._session.superseded).wait()
        raise Broken(
            f"Another node has written to {self.shown} while this one could not reach it. Stop one of them, then start again."
        )

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Transaction]:
        """Begin a write. One at a time in this process: a node has one writer, so nothing waits on a database lock.

        Raises:
            Unavailable: the database did not answer, or stopped answering. Unless that was in `commit`, nothing was written.
        """
        async with self._lock, self._connected(self._writer) as connection:
            await connection.begin()
            yield Transaction(connection)
            # The connection's exit rolls back whatever was not committed.

    @asynccontextmanager
    async def reshape(self) -> AsyncIterator[Transaction]:
        """A write that may rebuild tables. SQLite does that by dropping the old one, and must not follow foreign keys meanwhile."""
        async with self._lock, self._connected(self._writer) as connection:
            sqlite = (await connection.get_raw_connection()).driver_connection if self.dialect == "sqlite" else None
            try:
                if sqlite is not None:
                    await sqlite.execute("PRAGMA foreign_keys=OFF")
                await connection.begin()
                yield Transaction(connection)
            finally:
                await connection.rollback()
                if sqlite is not None:
                    await sqlite.execute("PRAGMA foreign_keys=ON")

    async def autocommit(self, statement: str, values: tuple[Any, ...]) -> Sequence[Any]:
        """Run one statement of the driver's as a transaction of its own: durable when its rows come back.

        For tables that nothing else is written together with: it waits for no other write. In SQLite, where a transaction holds the
        whole file, they lie in a second file beside the first, and the statement goes past SQLAlchemy: one visit to the driver's
        thread, half the processor time.

        Raises:
            Unavailable: the database did not answer; nothing was written.
            sqlite3.Error, DBAPIError: it refused; nothing was written.
        """
        assert self._aside is not None
        if isinstance(self._aside, AsyncEngine):
            async with self._connected(self._aside) as connection:
                found = await connection.exec_driver_sql(statement, values)
                return found.all() if found.returns_rows else []
        try:
            return await self._aside.visit(lambda sqlite: sqlite.execute(statement, values).fetchall())  # type: ignore[no-any-return]
        except sqlite3.OperationalError as problem:
            raise self._failed(problem) from problem

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A consistent view for reading.

        Raises:
            Unavailable: the database did not answer, or stopped answering.
        """
        async with self._connected(self._reader) as connection:
            yield connection

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """Tell the database's own failures from everything else that may go wrong in a transaction."""
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.connect())
            except (OSError, PoolTimeoutError, DBAPIError, TakenError) as problem:
                raise self._failed(problem) from problem
            try:
                yield connection
            except (ConnectionError, TimeoutError, DBAPIError) as problem:
                if isinstance(problem, DBAPIError) and not _passes(problem):
                    raise
                raise self._failed(problem) from problem
            if self.trouble is not None:
                log.warning("database.answers-again", database=self.shown)
                self.trouble = None

    def _failed(self, problem: Exception) -> Unavailable:
        cause = problem.orig if isinstance(problem, DBAPIError) else problem
        if self.trouble is None:
            log.warning("database.trouble", database=self.shown, problem=f"{type(cause).__name__}: {cause}")
        if isinstance(problem, TakenError):
            self.trouble = "Another node has taken the node's database."
        else:
            self.trouble = f"The node's database does not answer ({type(cause).__name__})."
        return Unavailable(self.trouble)

    async def close(self) -> None:
        """Give every connection back, and the hold."""
        await self._writer.dispose()
        await self._reader.dispose()
        await self._stack.aclose()


def _absent(problem: BaseException | None) -> bool:
    """Whether nobody listens, or the server has just begun to."""
    return isinstance(problem, OSError) or getattr(getattr(problem, "orig", None), "sqlstate", None) == "57P03"


def _passes(problem: DBAPIError) -> bool:
    """Whether the same statement may work later: the server is away, full or restarting, the file locked or its disk full."""
    state = getattr(problem.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(PASSING)
    return problem.connection_invalidated or isinstance(problem, OperationalError | InterfaceError)


def parse(address: str) -> URL:
    """Read a database URL; only SQLite and PostgreSQL through their asyncio drivers are served."""
    try:
        url = make_url(address)
    except ArgumentError as problem:
        # Not shown: it may hold a password.
        raise BadConfig("store.url is no database URL; write for example sqlite+aiosqlite:///state/pandacea.db.") from problem
    if url.drivername not in {"sqlite+aiosqlite", "postgresql+asyncpg"}:
        raise BadConfig(f"store.url uses {url.drivername!r}; allowed are sqlite+aiosqlite and postgresql+asyncpg.")
    return url
