"""A database of each kind; here SQLite in the test's own folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pandacea.store.migrate import upgrade
from pandacea.store.session import Database


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """An empty database at the newest schema."""
    opened = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'node.db'}")
    await upgrade(opened)
    yield opened
    await opened.close()
