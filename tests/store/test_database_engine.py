"""The database: one writer, and a transaction that rolls back unless told to commit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import text

from pandacea.errors import BadConfig, Broken
from pandacea.store.database_engine import DatabaseEngine


async def count(database: DatabaseEngine) -> int:
    async with database.read_connection() as connection:
        return int((await connection.execute(text("SELECT count(*) FROM request_nonce"))).scalar_one())


async def insert(database: DatabaseEngine, nonce: str, *, commit: bool) -> None:
    async with database.write_transaction() as tx:
        await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', :n, 1)"), {"n": nonce})
        if commit:
            await tx.commit()


async def test_what_is_not_committed_is_undone(database: DatabaseEngine) -> None:
    """Forgetting to commit loses a write; it never half-writes."""
    await insert(database, "a", commit=False)
    assert await count(database) == 0
    await insert(database, "a", commit=True)
    assert await count(database) == 1


async def test_an_exception_undoes_the_transaction(database: DatabaseEngine) -> None:
    """Whatever is raised inside, nothing of it stays."""

    async def fail() -> None:
        async with database.write_transaction() as tx:
            await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', 'a', 1)"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await count(database) == 0


async def test_a_cancelled_writer_leaves_the_lock_free(database: DatabaseEngine) -> None:
    """A request that is cut off while it writes must not stop the node."""
    inside = asyncio.Event()

    async def hang() -> None:
        async with database.write_transaction() as tx:
            await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', 'a', 1)"))
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await inside.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(5):
        await insert(database, "b", commit=True)
    assert await count(database) == 1


async def test_readers_do_not_wait_for_a_writer(database: DatabaseEngine) -> None:
    """WAL: while somebody writes, everybody sees what was last committed."""
    async with database.write_transaction() as tx:
        await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', 'a', 1)"))
        async with asyncio.timeout(5):
            assert await count(database) == 0


async def test_a_look_is_one_look(database: DatabaseEngine) -> None:
    """Two statements of one read see the same, whatever is committed between them."""
    async with database.read_connection() as connection:
        before = (await connection.execute(text("SELECT count(*) FROM request_nonce"))).scalar_one()
        await insert(database, "a", commit=True)
        assert (await connection.execute(text("SELECT count(*) FROM request_nonce"))).scalar_one() == before == 0
    assert await count(database) == 1


async def test_callbacks_run_after_the_commit_and_only_then(database: DatabaseEngine) -> None:
    """Memory follows the database, never the other way."""
    called: list[str] = []
    async with database.write_transaction() as tx:
        tx.after_commit(lambda: called.append("lost"))
    async with database.write_transaction() as tx:
        tx.after_commit(lambda: called.append("kept"))
        await tx.commit()
    assert called == ["kept"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "is not a database URL"),
        ("mysql+aiomysql://h/d", "allowed are sqlite+aiosqlite and postgresql+asyncpg"),
        ("sqlite:///file", "allowed are sqlite+aiosqlite"),
    ],
)
async def test_another_database_is_refused(url: str, said: str) -> None:
    """With what is allowed."""
    with pytest.raises(BadConfig, match=said.replace("+", r"\+")):
        await DatabaseEngine.open(url)


async def test_a_database_that_cannot_be_opened_is_named_without_its_password(tmp_path: Path) -> None:
    """A file that is not a database, a server that is not there."""
    file = tmp_path / "node.db"
    file.write_bytes(b"this is no database at all" * 100)
    with pytest.raises(Broken, match=r"node\.db"):
        await DatabaseEngine.open(f"sqlite+aiosqlite:///{file}")
    with pytest.raises(Broken) as caught:
        await DatabaseEngine.open("postgresql+asyncpg://node:hunter2@127.0.0.1:1/none")
    assert "hunter2" not in str(caught.value)
