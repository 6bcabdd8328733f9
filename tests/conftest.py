"""Fixtures of all suites: databases (SQLite in the test's folder, a real PostgreSQL server), and the check that nothing is left behind."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from pandacea.config.load import SHORT_VARIABLES
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from tests.postgres import PostgresServer, running_server
from tests.run_id import RUN_ID
from tests.sandbox.leftovers import left_by

SETTING = re.compile(rf"PANDACEA_(?!TEST_)\w+|{'|'.join(SHORT_VARIABLES)}|CREDENTIALS_DIRECTORY|NOTIFY_SOCKET|PG[A-Z]+")
"""Environment variables that nodes, commands and clients read; DOCKER_HOST is not one, as it names an engine to test with."""
ENDING_SECONDS = 10.0
"""Time for processes that the last test ended to disappear."""


def pytest_configure(config: pytest.Config) -> None:
    """Isolate the run: a temporary folder of its own, and no environment variable of a node or database that a person works with.

    What is left in the folder afterwards was left by this run. pytest's own folders stay in their usual place.
    """
    for name in [name for name in os.environ if SETTING.fullmatch(name)]:
        del os.environ[name]
    for name in ("no_proxy", "NO_PROXY"):  # a proxy reaches package indexes; the tests' own servers are on loopback
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost", "::1"]))
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = tempfile.mkdtemp(prefix="pandacea-tests-")
    os.environ["TMPDIR"] = tempfile.tempdir = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.fixture(scope="session", autouse=True)
def clean_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Check after the last test that nothing is left of the nodes that this run started, whatever was killed in between.

    What other nodes and other runs make meanwhile is not counted.
    """
    yield
    roots = [Path(tempfile.gettempdir()), tmp_path_factory.getbasetemp()]
    deadline = time.monotonic() + ENDING_SECONDS
    while (left := left_by(RUN_ID, roots)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for the whole run, started by the first test that needs it."""
    with running_server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """URL of a database without tables, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path / 'node.db'}"
        return
    running: PostgresServer = request.getfixturevalue("postgres")
    name = await running.create_empty_database()
    yield running.url(name)
    await running.drop_database(name)


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """URL of an empty database at the newest schema, of each kind in turn."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'node.db'}"
        made = await DatabaseEngine.open(url)
        await upgrade(made)
        await made.close()
        yield url
        return
    running: PostgresServer = request.getfixturevalue("postgres")
    name = await running.create_migrated_database()
    yield running.url(name)
    await running.recycle_database(name)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[DatabaseEngine]:
    """An open, empty database at the newest schema, of each kind in turn."""
    opened = await DatabaseEngine.open(database_url)
    yield opened
    await opened.close()
