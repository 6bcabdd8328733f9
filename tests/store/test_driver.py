"""SQLite's driver: few visits to its thread, and nothing left open when a caller goes away in the middle of one."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from pandacea.store import driver
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade

SLOW = "INSERT INTO request_nonce WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000) SELECT 'k', i, 1 FROM n"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[DatabaseEngine]:
    """SQLite, empty, at the newest schema."""
    opened = await DatabaseEngine.open(f"sqlite+aiosqlite:///{tmp_path / 'node.db'}")
    await upgrade(opened)
    yield opened
    await opened.close()


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each visit to the thread of any connection."""
    made: list[None] = []
    plain = driver.SqliteConnection.run_on_thread

    async def visit(self: driver.SqliteConnection, work: Callable[[sqlite3.Connection], Any]) -> Any:
        made.append(None)
        return await plain(self, work)

    monkeypatch.setattr(driver.SqliteConnection, "run_on_thread", visit)
    return made


async def count(database: DatabaseEngine) -> int:
    async with database.read_connection() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM request_nonce"))).scalar_one())


async def test_a_statement_is_one_visit(database: DatabaseEngine, visits: list[None]) -> None:
    """A look: begin, query, end. A write: begin, statement, commit. A statement that is its own transaction: itself."""
    await count(database)
    assert len(visits) == 3
    visits.clear()
    async with database.write_transaction() as tx:
        await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', 'a', 1)"))
        await tx.commit()
    assert len(visits) == 3
    visits.clear()
    await database.execute_autocommit("INSERT INTO request_nonce VALUES (?, ?, ?) RETURNING nonce", ("k", "b", 1))
    assert len(visits) == 1


async def test_what_comes_back_is_what_sqlite_says(database: DatabaseEngine) -> None:
    """Rows, their number, and errors as SQLAlchemy knows them."""
    async with database.write_transaction() as tx:
        rows = [{"n": str(number)} for number in range(3)]
        await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', :n, 1)"), rows)
        changed = await tx.connection.execute(text("UPDATE request_nonce SET expires = 2 WHERE nonce <> '1'"))
        assert changed.rowcount == 2
        found = await tx.connection.execute(text("SELECT nonce, expires FROM request_nonce ORDER BY nonce"))
        assert found.all() == [("0", 2), ("1", 1), ("2", 2)]
        with pytest.raises(Exception, match="UNIQUE"):
            await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', '1', 1)"))
        await tx.commit()
    assert await count(database) == 3
    assert await database.execute_autocommit("INSERT INTO request_nonce VALUES (?, ?, ?)", ("k", "1", 1)) == []
    with pytest.raises(sqlite3.IntegrityError):
        await database.execute_autocommit("INSERT INTO request_nonce VALUES (?, ?, ?)", ("k", "1", 1))


@pytest.mark.parametrize("turns", [1, 2, 4, 8, 16])
async def test_a_caller_cut_off_leaves_nothing_behind(database: DatabaseEngine, turns: int) -> None:
    """Wherever it was, on its way to the thread or waiting for it: its transaction is undone before the next begins."""

    async def slow() -> None:
        async with database.write_transaction() as tx:
            await tx.connection.execute(text(SLOW))
            await asyncio.Event().wait()

    task = asyncio.create_task(slow())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with database.write_transaction() as tx:
        await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', 'after', 1)"))
        await tx.commit()
    assert await count(database) == 1
