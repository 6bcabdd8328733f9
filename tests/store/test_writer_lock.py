"""One node a database, on both: who has it keeps others out, who dies gives it back, who lost it does not write on."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from sqlalchemy import text

from pandacea.errors import Broken
from pandacea.store.database_engine import DatabaseEngine
from tests.postgres import PASSWORD
from tests.prerequisites import ROOT

HOLDER = """
import asyncio, sys
from pandacea.store.database_engine import DatabaseEngine

async def main():
    database = await DatabaseEngine.open(sys.argv[1], exclusive=True)
    await database.write_fencing_token()
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def insert(database: DatabaseEngine, nonce: str) -> None:
    async with database.write_transaction() as tx:
        await tx.connection.execute(text("INSERT INTO request_nonce VALUES ('k', :n, 1)"), {"n": nonce})
        await tx.commit()


async def nonces(database: DatabaseEngine) -> list[str]:
    async with database.read_connection() as connection:
        return [row[0] for row in (await connection.execute(text("SELECT nonce FROM request_nonce ORDER BY nonce"))).all()]


async def test_a_second_node_is_refused_and_a_command_is_not(database_url: str) -> None:
    """The sentence says on what; never with the password. A command that looks on beside the node may."""
    first = await DatabaseEngine.open(database_url, exclusive=True)
    with pytest.raises(Broken, match="Another node runs on") as caught:
        await DatabaseEngine.open(database_url, exclusive=True)
    assert PASSWORD not in str(caught.value)
    assert "a%20pass" not in str(caught.value)
    beside = await DatabaseEngine.open(database_url)
    await insert(beside, "a")
    assert await nonces(first) == ["a"]
    await beside.close()
    await first.close()
    await (await DatabaseEngine.open(database_url, exclusive=True)).close()


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
        await DatabaseEngine.open(database_url, exclusive=True)
    process.kill()
    await process.wait()
    database = await DatabaseEngine.open(database_url, exclusive=True)
    await insert(database, "a")
    await database.close()
