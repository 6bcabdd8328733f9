"""What only a server can do: refuse a password, stop, come back, cut a transaction in two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from pandacea.errors import Broken, Unavailable
from pandacea.store.database_engine import DatabaseEngine
from tests.postgres import PASSWORD, PostgresServer
from tests.store.test_writer_lock import insert, nonces


@pytest.fixture
async def name(postgres: PostgresServer) -> AsyncIterator[str]:
    """A database of this test's own."""
    made = await postgres.create_migrated_database()
    yield made
    await postgres.recycle_database(made)


async def test_the_password_comes_apart_from_the_url(postgres: PostgresServer, name: str) -> None:
    """A wrong one is told of without it."""
    database = await DatabaseEngine.open(postgres.url(name, password=False), password=PASSWORD)
    await insert(database, "a")
    await database.close()
    with pytest.raises(Broken, match=r"cannot be opened: .*password authentication failed") as caught:
        await DatabaseEngine.open(postgres.url(name, password=False), password="hunter2")
    assert "hunter2" not in str(caught.value)


async def test_a_url_that_cannot_be_read_is_not_repeated() -> None:
    """It may hold a password."""
    with pytest.raises(Broken, match="is not a database URL") as caught:
        await DatabaseEngine.open("postgresql//node:hunter2@host/name")
    assert "hunter2" not in str(caught.value)


async def test_a_server_that_stops_and_comes_back(postgres: PostgresServer, name: str) -> None:
    """Unavailable while it is away, also for who was in the middle of a transaction, and then as before."""
    database = await DatabaseEngine.open(postgres.url(name), exclusive=True)
    await database.write_fencing_token()
    await insert(database, "a")

    async def cut_in_two() -> None:
        async with database.write_transaction() as tx:
            await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', 'lost', 1)"))
            postgres.stop()
            await tx.commit()

    try:
        with pytest.raises(Unavailable, match="does not answer"):
            await cut_in_two()
        for _ in range(3):
            with pytest.raises(Unavailable, match="does not answer"):
                await insert(database, "b")
            with pytest.raises(Unavailable, match="does not answer"):
                await nonces(database)
        assert database.failure_reason is not None
        assert "127.0.0.1" not in database.failure_reason, "Spenders are told of it"
    finally:
        postgres.start()
    await insert(database, "c")
    assert database.failure_reason is None
    assert await nonces(database) == ["a", "c"]
    await database.close()


async def test_a_server_that_falls_silent_in_a_statement(postgres: PostgresServer, name: str) -> None:
    """A cancelled request leaves the connection usable, whatever the server was doing for it."""
    database = await DatabaseEngine.open(postgres.url(name))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), database.write_transaction() as tx:
            await tx.connection.execute(text("SELECT pg_sleep(30)"))
    async with asyncio.timeout(5):
        await insert(database, "a")
    assert await nonces(database) == ["a"]
    await database.close()


async def cut(postgres: PostgresServer, database: DatabaseEngine) -> None:
    """End every session of a database, as a network or a server does."""
    await postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database.url.database}'")


async def test_a_session_that_was_cut_is_made_again(postgres: PostgresServer, name: str) -> None:
    """Nobody else was there: the node goes on, and holds it again."""
    database = await DatabaseEngine.open(postgres.url(name), exclusive=True)
    await database.write_fencing_token()
    await insert(database, "a")
    await cut(postgres, database)
    await insert(database, "b")
    assert await nonces(database) == ["a", "b"]
    with pytest.raises(Broken, match="Another node runs on"):
        await DatabaseEngine.open(postgres.url(name), exclusive=True)
    await database.close()


async def test_who_lost_it_to_another_writes_no_more(postgres: PostgresServer, name: str) -> None:
    """While the other holds it: unavailable. When the other has gone: what this one remembers is old, so it ends."""
    database = await DatabaseEngine.open(postgres.url(name), exclusive=True)
    await database.write_fencing_token()
    ends = asyncio.create_task(database.wait_until_superseded())
    await cut(postgres, database)
    other = await DatabaseEngine.open(postgres.url(name), exclusive=True)
    await other.write_fencing_token()
    with pytest.raises(Unavailable, match="Another node has taken"):
        await insert(database, "a")
    assert not ends.done()
    await other.close()
    with pytest.raises(Unavailable):
        await insert(database, "a")
    async with asyncio.timeout(5):
        with pytest.raises(Broken, match="Another node has written"):
            await ends
    assert await nonces(database) == []
    await database.close()
