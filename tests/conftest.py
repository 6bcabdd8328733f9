"""Databases for every suite: SQLite in the test's own folder, and one of a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pandacea.store.migrate import upgrade
from pandacea.store.session import Database
from tests.postgres import Postgres, server


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
