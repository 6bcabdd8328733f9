"""One node a database, on both: who has it keeps others out, who dies gives it back, who lost it does not write on."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from sqlalchemy import text

from pandacea.errors import Broken
from pandacea.store.session import Database
from tests.parts import ROOT
from tests.postgres import PASSWORD

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
