"""A real sandbox to convert in, a real database to register in."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pandacea.catalogue.registry import ProductCatalogue
from pandacea.catalogue.table_store import TableStore
from pandacea.domain.limits import Limits
from pandacea.sandbox.bubblewrap.backend import BubblewrapSandbox
from pandacea.sandbox.bubblewrap.cgroups import NodeCgroup
from pandacea.sandbox.settings import BubblewrapSettings, PoolSettings
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from pandacea.store.products import SqlProductStore
from tests.engine import prepare
from tests.fakes import FakeClock
from tests.prerequisites import find_program, skip_or_fail
from tests.run_id import instance_name

SIGNATURE = "0x" + "5a" * 65
LIMITS = Limits()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BubblewrapSandbox]:
    """An open service with two warm sandboxes."""
    find_program("bwrap", "bubblewrap")
    try:
        environment = prepare.environment()
    except (prepare.CannotPrepareError, OSError, subprocess.SubprocessError) as error:
        skip_or_fail(f"no sandbox environment: {error}")
    pool = PoolSettings(size=2, preload=("numpy", "pandas", "pyarrow"), limits=LIMITS)
    settings = BubblewrapSettings(
        environment, tmp_path_factory.mktemp("box"), instance_name("data"), NodeCgroup.is_available(), pool=pool
    )
    opened = BubblewrapSandbox(settings)
    await opened.start()
    yield opened
    await opened.stop()


@pytest.fixture
def tables(sandbox: BubblewrapSandbox, tmp_path: Path) -> TableStore:
    """A store of tables, empty."""
    return TableStore(tmp_path / "state" / "tables", sandbox, LIMITS)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """The Earner's folder, empty."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest_asyncio.fixture(loop_scope="session")
async def product_store(tmp_path: Path) -> AsyncIterator[SqlProductStore]:
    """The node's own record of products."""
    opened = await DatabaseEngine.open(f"sqlite+aiosqlite:///{tmp_path / 'node.db'}")
    await upgrade(opened)
    yield SqlProductStore(opened)
    await opened.close()


@pytest.fixture
def catalogue(product_store: SqlProductStore, tables: TableStore) -> ProductCatalogue:
    """A catalogue that signs everything alike."""
    return ProductCatalogue(product_store, lambda _digest: SIGNATURE, FakeClock(), tables)
