"""A real box to convert in, a real database to register in."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pandacea.catalogue.registry import Catalogue
from pandacea.catalogue.tables import Tables
from pandacea.domain.limits import Limits
from pandacea.sandbox.bubblewrap import BubblewrapSandbox
from pandacea.sandbox.cgroups import Cgroups
from pandacea.sandbox.settings import BubblewrapSettings, PoolSettings
from pandacea.store.migrate import upgrade
from pandacea.store.products import SqlProductBook
from pandacea.store.session import Database
from tests.engine import prepare
from tests.fakes import FakeClock
from tests.parts import missing, program
from tests.run import instance_name

SIGNATURE = "0x" + "5a" * 65
LIMITS = Limits()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def box(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BubblewrapSandbox]:
    """An open sandbox with two warm boxes."""
    program("bwrap", "bubblewrap")
    try:
        environment = prepare.environment()
    except (prepare.CannotPrepareError, OSError, subprocess.SubprocessError) as error:
        missing(f"no sandbox environment: {error}")
    pool = PoolSettings(size=2, preload=("numpy", "pandas", "pyarrow"), limits=LIMITS)
    settings = BubblewrapSettings(
        environment, tmp_path_factory.mktemp("box"), instance_name("data"), Cgroups.may_be_made(), pool=pool
    )
    opened = BubblewrapSandbox(settings)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def tables(box: BubblewrapSandbox, tmp_path: Path) -> Tables:
    """A store of tables, empty."""
    return Tables(tmp_path / "state" / "tables", box, LIMITS)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The Earner's folder, empty."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest_asyncio.fixture(loop_scope="session")
async def book(tmp_path: Path) -> AsyncIterator[SqlProductBook]:
    """The node's own record of products."""
    opened = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'node.db'}")
    await upgrade(opened)
    yield SqlProductBook(opened)
    await opened.close()


@pytest.fixture
def catalogue(book: SqlProductBook, tables: Tables) -> Catalogue:
    """A catalogue that signs everything alike."""
    return Catalogue(book, lambda _digest: SIGNATURE, FakeClock(), tables)
