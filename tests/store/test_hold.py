"""One node a database, on both: who has it keeps others out, who dies gives it back, who lost it does not write on."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from sqlalchemy import text

from pandacea.errors import Broken, Unavailable
from pandacea.store.session import Database
from tests.parts import ROOT
from tests.postgres import PASSWORD, Postgres

HOLDER = """
import asyncio, sys
from pandacea.store.session import Database

async def main():
    database = await Database.open(sys.argv[1], alone=True)
    await database.claim()
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def insert(database: Database, nonce: str) -> None:
    async with database.write() as tx:
        await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', :n, 1)"), {"n": nonce})
        await tx.commit()


async def nonces(database: Database) -> list[str]:
    async with database.read() as connection:
        return [row[0] for row in (await connection.execute(text("SELECT nonce FROM request_nonce ORDER BY nonce"))).all()]


async def test_a_second_node_is_refused_and_a_command_is_not(database_url: str) -> None:
    """The sentence says on what; never with the password. A command that looks on beside the node may."""
    first = await Database.open(database_url, alone=True)
    with pytest.raises(Broken, match="Another node runs on") as caught:
        await Database.open(database_url, alone=True)
    assert PASSWORD not in str(caught.value)
    assert "a%20pass" not in str(caught.value)
    beside = await Database.open(database_url)
    await insert(beside, "a")
    assert await nonces(first) == ["a"]
    await beside.close()
    await first.close()
    await (await Database.open(database_url, alone=True)).close()


async def test_who_is_killed_gives_it_back(database_url: str) -> None:
    """By SIGKILL, while it holds it: the next start has it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOLDER,
        database_url,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")},
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    with pytest.raises(Broken):
        await Database.open(database_url, alone=True)
    process.kill()
    await process.wait()
    database = await Database.open(database_url, alone=True)
    await insert(database, "a")
    await database.close()


async def cut(postgres: Postgres, database: Database) -> None:
    """End every session of a database, as a network or a server does."""
    await postgres.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database.url.database}'")


async def test_a_session_that_was_cut_is_made_again(postgres: Postgres, database_url: str) -> None:
    """Nobody else was there: the node goes on, and holds it again."""
    if database_url.startswith("sqlite"):
        pytest.skip("a file has no sessions")
    database = await Database.open(database_url, alone=True)
    await database.claim()
    await insert(database, "a")
    await cut(postgres, database)
    await insert(database, "b")
    assert await nonces(database) == ["a", "b"]
    with pytest.raises(Broken, match="Another node runs on"):
        await Database.open(database_url, alone=True)
    await database.close()


async def test_who_lost_it_to_another_writes_no_more(postgres: Postgres, database_url: str) -> None:
    """While the other holds it: unavailable. When the other has gone: what this one remembers is old, so it ends."""
    if database_url.startswith("sqlite"):
        pytest.skip("a file lock is not lost")
    database = await Database.open(database_url, alone=True)
    await database.claim()
    ends = asyncio.create_task(database.superseded())
    await cut(postgres, database)
    other = await Database.open(database_url, alone=True)
    await other.claim()
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
