"""What every suite shares: databases (SQLite in the test's own folder, a real PostgreSQL server's), and a machine left as it was found."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pandacea.store.migrate import upgrade
from pandacea.store.session import Database
from tests.postgres import Postgres, server
from tests.sandbox.leftovers import of_any_node


@pytest.fixture(scope="session", autouse=True)
def clean_machine() -> Iterator[None]:
    """After the last test nothing of a node is there that was not there before the first, whatever was killed in between.

    Looked for under CI, where no other node and no other suite runs beside this one.
    """
    before = frozenset(of_any_node())
    yield
    assert os.environ.get("CI") != "true" or [found for found in of_any_node() if found not in before] == []


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for the whole run, started when the first test wants it."""
    with server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """URL of a database of each kind without a table."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'node.db'}"
        return
    running: Postgres = request.getfixturevalue("postgres")
    name = await running.empty()
    yield running.url(name)
    await running.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """URL of an empty database of each kind at the newest schema."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'node.db'}"
        made = await Database.open(url)
        await upgrade(made)
        await made.close()
        yield url
        return
    running: Postgres = request.getfixturevalue("postgres")
    name = await running.fresh()
    yield running.url(name)
    await running.recycle(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """An empty database of each kind at the newest schema."""
    opened = await Database.open(database_url)
    yield opened
    await opened.close()
