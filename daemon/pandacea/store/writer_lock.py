"""One node for each database. SQLite: a lock on a file beside it. PostgreSQL: an advisory lock of the writing session itself.

The holder of the lock is the only writer; when its process dies, the kernel or the server releases the lock.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from sqlalchemy import Column, Integer
from sqlmodel import Field, SQLModel

from pandacea.errors import Broken

ACQUIRE_SECONDS: Final = 2.0
"""Seconds for which a lock is tried: a killed node's lock remains for moments in a child that it was starting, or in its session."""

ADVISORY_LOCK: Final = int.from_bytes(b"pandacea")
"""The key of the advisory lock, one for each PostgreSQL database: 8 bytes that spell the program's name."""


class HolderRow(SQLModel, table=True):
    """Fencing token, drawn at each start: after a lost connection it shows whether another node has written meanwhile."""

    __tablename__ = "holder"

    id: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    word: str = Field(max_length=32)


class DatabaseTakenError(Exception):
    """Another node has locked the database."""


@asynccontextmanager
async def hold_lock_file(file: Path, what: str) -> AsyncIterator[None]:
    """Lock a file (created when it is missing) until the block ends.

    Raises:
        Broken: another process holds the lock for longer than a moment; `what` names in the text what is locked.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        await acquire_with_retry(lambda: _lock(descriptor), what)
        yield
    finally:
        os.close(descriptor)


async def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DatabaseTakenError("another node has it") from None


async def acquire_with_retry(acquire: Callable[[], Awaitable[None]], what: str) -> None:
    """Acquire a lock, repeatedly for a moment.

    Raises:
        Broken: another node has it.
    """
    deadline = time.monotonic() + ACQUIRE_SECONDS
    while True:
        try:
            await acquire()
        except DatabaseTakenError:
            if time.monotonic() > deadline:
                raise Broken(f"Another node runs on {what}. Stop it, or give this one its own store.") from None
            await asyncio.sleep(0.05)
        else:
            return


class PostgresSession(Protocol):
    """The part of an asyncpg connection that the lock needs; asyncpg itself has no types."""

    async def fetchval(self, query: str, *values: object) -> object:
        """Execute a query and return the first column of its first row; None: it has no row."""

    async def close(self, *, timeout: float | None = None) -> None:
        """Close the connection, within so many seconds."""


class WriterSession:
    """Connects the one session that may write to a PostgreSQL database: it has the lock, or it is not opened."""

    def __init__(self, connect: Callable[[], Awaitable[PostgresSession]]) -> None:
        """`connect` gives an asyncpg connection."""
        self._connect = connect
        self._fencing_token = secrets.token_hex(16)
        self._token_written = False
        self.superseded = asyncio.Event()
        """Set when another node wrote while this one's session was lost: what this process holds in memory is out of date."""

    async def __call__(self) -> PostgresSession:
        """Connect and acquire the lock.

        Raises:
            DatabaseTakenError: another node has it, or had it since this one lost it.
        """
        connection = await self._connect()
        try:
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", ADVISORY_LOCK):
                raise DatabaseTakenError("another node has it")
            if self._token_written and await connection.fetchval("SELECT word FROM holder WHERE id = 1") != self._fencing_token:
                self.superseded.set()
                raise DatabaseTakenError("another node had it")
        except BaseException:
            await connection.close(timeout=2)
            raise
        return connection

    async def write_fencing_token(self, execute: Callable[[str, tuple[object, ...]], Awaitable[object]]) -> None:
        """Write this start's fencing token, in a transaction of the writer at the newest schema."""
        await execute(
            "INSERT INTO holder (id, word) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET word = excluded.word",
            (self._fencing_token,),
        )
        self._token_written = True
