"""The database: one writer, many readers, and a transaction that rolls back unless told to commit."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import structlog
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from pandacea.errors import BadConfig, Broken, Unavailable
from pandacea.store import driver, engines
from pandacea.store.bulk import DbRow
from pandacea.store.writer_lock import DatabaseTakenError, WriterSession, acquire_with_retry, hold_lock_file

log = structlog.get_logger(__name__)

TRANSIENT_SQLSTATES: Final = ("08", "25006", "40", "53", "57", "58")
"""SQLSTATE classes and codes of PostgreSQL for errors of the server, not of a statement: connection, read-only standby, rollback,
resources, shutdown, system."""


class WriteTransaction:
    """A write in progress. Leaving its block without `commit` undoes everything."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Take over a connection on which a transaction has begun."""
        self.connection = connection
        self._after_commit: list[Callable[[], None]] = []

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Run `callback()` once the commit is durable, so that memory follows the database and never the other way."""
        self._after_commit.append(callback)

    async def commit(self) -> None:
        """Commit durably, then run the callbacks. Call it once, last."""
        await self.connection.commit()
        for callback in self._after_commit:
            callback()


class DatabaseUnreachable(Broken):
    """No database server answers (yet)."""


class DatabaseEngine:
    """SQLite in WAL mode (default) or PostgreSQL, behind the same two methods: `write_transaction` and `read_connection`."""

    def __init__(self, url: URL, writer: AsyncEngine, reader: AsyncEngine) -> None:
        """Call `DatabaseEngine.open` to make one."""
        self.url = url
        self.dialect = writer.dialect.name
        self.failure_reason: str | None = None
        """Why the database failed in the last transaction; None: it answers."""
        self._writer = writer
        self._reader = reader
        self._lock = asyncio.Lock()
        self._aside: driver.SqliteConnection | AsyncEngine | None = None
        """What `execute_autocommit` writes to: SQLite's second file, PostgreSQL's second connection that writes."""
        self._writer_session: WriterSession | None = None
        self._stack = AsyncExitStack()

    @classmethod
    async def open(cls, address: str, *, password: str | None = None, exclusive: bool = False) -> DatabaseEngine:
        """Open the database at a SQLAlchemy URL (`sqlite+aiosqlite:///file` or `postgresql+asyncpg://...`).

        Args:
            address: the URL.
            password: PostgreSQL's, instead of one in the URL.
            exclusive: lock it as the one node that writes to it; call `write_fencing_token` once its schema is the newest.

        Raises:
            BadConfig: the URL cannot be read or names another database.
            Broken: the database cannot be opened, or (`exclusive`) another node has it; DatabaseUnreachable: no server answers.
        """
        url = parse_database_url(address)
        session = None
        if url.get_backend_name() == "sqlite":
            if url.database and url.database != ":memory:":
                Path(url.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            writer, reader, aside = (
                engines.create_sqlite_engine(url, "BEGIN IMMEDIATE", pool_size=1),
                engines.create_sqlite_engine(url, "BEGIN", pool_size=4),
                None,
            )
        else:
            url = url if password is None else url.set(password=password)
            session = WriterSession(lambda: engines.connect_postgresql(url)) if exclusive else None
            writer, reader, aside = engines.create_postgresql_engines(url, session)
        database = cls(url, writer, reader)
        database._writer_session, database._aside = session, aside
        if aside is not None:
            database._stack.push_async_callback(aside.dispose)
        try:
            await database._connect(exclusive=exclusive)
        except BaseException:
            await database.close()
            raise
        return database

    @property
    def safe_url(self) -> str:
        """The URL without the password."""
        return self.url.render_as_string(hide_password=True)

    async def _connect(self, *, exclusive: bool) -> None:
        try:
            async with self.read_connection():
                pass
            if exclusive and self._writer_session is not None:
                await acquire_with_retry(self._check_writer, self.safe_url)
            elif exclusive and self.url.database not in {None, "", ":memory:"}:
                await self._stack.enter_async_context(hold_lock_file(Path(f"{self.url.database}.lock"), self.safe_url))
            if self.dialect == "sqlite":
                self._aside = await engines.connect_sqlite_aside(Path(self.url.database or ""))
                self._stack.push_async_callback(self._aside.close)
        except (Unavailable, sqlite3.Error) as problem:
            cause = problem.__cause__ or problem
            kind = DatabaseUnreachable if _is_unreachable(cause) else Broken
            raise kind(
                f"The database {self.safe_url} cannot be opened: {cause}. Check store.url and that the file or server is there."
            ) from problem

    async def _check_writer(self) -> None:
        try:
            async with self.write_transaction() as tx:
                await tx.connection.exec_driver_sql("SELECT 1")
        except Unavailable as problem:
            if isinstance(problem.__cause__, DatabaseTakenError):
                raise problem.__cause__ from None
            raise

    async def write_fencing_token(self) -> None:
        """Write this start's fencing token, so that the node notices after a lost connection whether another node wrote meanwhile."""
        if self._writer_session is not None:
            async with self.write_transaction() as tx:
                await self._writer_session.write_fencing_token(tx.connection.exec_driver_sql)
                await tx.commit()

    async def wait_until_superseded(self) -> None:
        """Wait until another node has written to the database, which can happen only after the connection was lost.

        Raises:
            Broken: another node has.
        """
        await (asyncio.Event() if self._writer_session is None else self._writer_session.superseded).wait()
        raise Broken(
            f"Another node has written to {self.safe_url} while this one could not reach it. Stop one of them, then start again."
        )

    @asynccontextmanager
    async def write_transaction(self) -> AsyncIterator[WriteTransaction]:
        """Begin a write transaction, one at a time in this process, so that none waits for a lock of the database.

        Raises:
            Unavailable: the database did not answer, or stopped answering. Unless that was in `commit`, nothing was written.
        """
        async with self._lock, self._connection(self._writer) as connection:
            await connection.begin()
            yield WriteTransaction(connection)
            # The connection's exit rolls back whatever was not committed.

    @asynccontextmanager
    async def write_schema(self) -> AsyncIterator[WriteTransaction]:
        """Begin a transaction that may rebuild tables. SQLite drops the old table for that, so foreign keys are off meanwhile."""
        async with self._lock, self._connection(self._writer) as connection:
            sqlite = (await connection.get_raw_connection()).driver_connection if self.dialect == "sqlite" else None
            try:
                if sqlite is not None:
                    await sqlite.execute("PRAGMA foreign_keys=OFF")
                await connection.begin()
                yield WriteTransaction(connection)
            finally:
                await connection.rollback()
                if sqlite is not None:
                    await sqlite.execute("PRAGMA foreign_keys=ON")

    async def execute_autocommit(self, statement: str, values: tuple[object, ...]) -> Sequence[DbRow]:
        """Execute one statement of the driver's as a transaction of its own, durable when this returns its rows.

        It is for tables that are written alone, and does not wait for other writes. In SQLite, where a transaction locks the whole
        file, these tables are in a second file, and the statement bypasses SQLAlchemy: one call to the driver's thread, half the
        processor time.

        Raises:
            Unavailable: the database did not answer; nothing was written.
            sqlite3.Error, DBAPIError: it refused the statement; nothing was written.
        """
        assert self._aside is not None
        if isinstance(self._aside, AsyncEngine):
            async with self._connection(self._aside) as connection:
                found = await connection.exec_driver_sql(statement, values)
                return found.all() if found.returns_rows else []
        try:
            rows = await self._aside.run_on_thread(lambda sqlite: sqlite.execute(statement, values).fetchall())
        except sqlite3.OperationalError as problem:
            raise self._to_unavailable(problem) from problem
        return rows

    @asynccontextmanager
    async def read_connection(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection that sees one state of the database.

        Raises:
            Unavailable: the database did not answer, or stopped answering.
        """
        async with self._connection(self._reader) as connection:
            yield connection

    @asynccontextmanager
    async def _connection(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """Turn failures of the database itself into `Unavailable`; other exceptions pass unchanged."""
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(engine.connect())
            except (OSError, PoolTimeoutError, DBAPIError, DatabaseTakenError) as problem:
                raise self._to_unavailable(problem) from problem
            try:
                yield connection
            except (ConnectionError, TimeoutError, DBAPIError) as problem:
                if isinstance(problem, DBAPIError) and not _is_transient(problem):
                    raise
                raise self._to_unavailable(problem) from problem
            if self.failure_reason is not None:
                log.warning("database.available", database=self.safe_url)
                self.failure_reason = None

    def _to_unavailable(self, problem: Exception) -> Unavailable:
        cause = problem.orig if isinstance(problem, DBAPIError) else problem
        if self.failure_reason is None:
            log.warning("database.unavailable", database=self.safe_url, reason=f"{type(cause).__name__}: {cause}")
        if isinstance(problem, DatabaseTakenError):
            self.failure_reason = "Another node has taken the node's database."
        else:
            self.failure_reason = f"The node's database does not answer ({type(cause).__name__})."
        return Unavailable(self.failure_reason)

    async def close(self) -> None:
        """Close every connection and release the lock."""
        await self._writer.dispose()
        await self._reader.dispose()
        await self._stack.aclose()


def _is_unreachable(problem: BaseException | None) -> bool:
    """Whether no server listens, or it is still starting."""
    return isinstance(problem, OSError) or getattr(getattr(problem, "orig", None), "sqlstate", None) == "57P03"


def _is_transient(problem: DBAPIError) -> bool:
    """Whether the statement may succeed later: the server is away, full or restarting, the file is locked or its disk full."""
    state = getattr(problem.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(TRANSIENT_SQLSTATES)
    return problem.connection_invalidated or isinstance(problem, OperationalError | InterfaceError)


def parse_database_url(address: str) -> URL:
    """Parse a database URL; only SQLite and PostgreSQL through their asyncio drivers are supported."""
    try:
        url = make_url(address)
    except ArgumentError as problem:
        # The URL is not shown: it may contain a password.
        raise BadConfig("store.url is not a database URL; write for example sqlite+aiosqlite:///state/pandacea.db.") from problem
    if url.drivername not in {"sqlite+aiosqlite", "postgresql+asyncpg"}:
        raise BadConfig(f"store.url uses {url.drivername!r}; allowed are sqlite+aiosqlite and postgresql+asyncpg.")
    return url
