"""Engines for SQLite and PostgreSQL, set up so that a write and a read mean the same in both."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from sqlalchemy import event
from sqlalchemy.engine import URL, Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from pandacea.store import driver
from pandacea.store.writer_lock import PostgresSession

SQLITE_PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    # A nonce or a charge that was answered must survive a power failure, not only a killed process.
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA busy_timeout=10000",
)

CONNECT_SECONDS: Final = 5.0
"""Time limit of a connection to PostgreSQL, in seconds."""
STATEMENT_SECONDS: Final = 60.0
"""Time limit of one statement in PostgreSQL, in seconds."""
SERVER_SETTINGS: Final = {
    "application_name": "pandacea",
    # When the node's machine fails silently, the server notices within a minute and frees the node's lock.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    # As SQLite's synchronous=FULL: what was answered survives a power failure.
    "synchronous_commit": "on",
}


def create_sqlite_engine(url: URL, begin: str, *, pool_size: int) -> AsyncEngine:
    """Create an engine for a SQLite file; `begin`: the statement that begins each transaction."""
    creator = {"async_creator_fn": driver.connect}
    engine = create_async_engine(
        url, pool_size=pool_size, max_overflow=0, pool_timeout=60, hide_parameters=True, connect_args=creator
    )

    def connected(connection: DBAPIConnection, _record: object) -> None:
        # Python's own BEGIN comes too late (a read first takes a shared lock, then fails to upgrade it), so transactions begin below.
        connection.isolation_level = None
        _set_pragmas(connection)

    def begun(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine.sync_engine, "connect", connected)
    event.listen(engine.sync_engine, "begin", begun)
    return engine


async def connect_sqlite_aside(main: Path) -> driver.SqliteConnection:
    """Connect to the second file beside the main one, in which every statement is a transaction of its own."""
    aside = main.with_name(f"{main.stem}-aside{main.suffix}")
    connection = await driver.connect(aside, isolation_level=None, check_same_thread=False)
    await connection.run_on_thread(_set_pragmas)
    return connection


def _set_pragmas(connection: DBAPIConnection | sqlite3.Connection) -> None:
    """Set the pragmas that every SQLite connection needs."""
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def create_postgresql_engines(
    url: URL, session: Callable[[], Awaitable[PostgresSession]] | None
) -> tuple[AsyncEngine, AsyncEngine, AsyncEngine]:
    """Create three engines: a writer of one connection (made by `session` when given), readers, and one for autocommit statements."""

    async def connect() -> PostgresSession:
        return await connect_postgresql(url)

    # Parameters are scripts, nonces and results: they must not appear in an error's text.
    shared: dict[str, object] = {"max_overflow": 0, "pool_pre_ping": True, "hide_parameters": True}
    writer = create_async_engine(url, async_creator=session or connect, pool_size=1, **shared)
    # A read transaction sees one state of the database, whatever is committed meanwhile; SQLite's readers do by themselves.
    reader = create_async_engine(url, async_creator=connect, pool_size=4, isolation_level="REPEATABLE READ", **shared)
    aside = create_async_engine(url, async_creator=connect, pool_size=1, isolation_level="AUTOCOMMIT", **shared)
    return writer, reader, aside


async def connect_postgresql(url: URL) -> PostgresSession:
    """Open one asyncpg connection."""
    import asyncpg

    _, options = url.get_dialect()().create_connect_args(url)
    limits: dict[str, object] = {
        "timeout": CONNECT_SECONDS,
        "command_timeout": STATEMENT_SECONDS,
        "server_settings": SERVER_SETTINGS,
    }
    session: PostgresSession = await asyncpg.connect(**limits, **options)
    return session
