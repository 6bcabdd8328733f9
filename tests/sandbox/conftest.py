"""One open sandbox for each mode and session; what is missing is prepared, or the test skips (and fails under CI)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.engine import prepare
from tests.prerequisites import find_program, skip_or_fail
from tests.sandbox.harness import MODES, Laboratory, close_laboratory, open_laboratory
from tests.sandbox.leftovers import left_behind


@pytest.fixture(scope="session")
def environment() -> Path:
    """Build the bubblewrap environment, or find the one that is there."""
    try:
        return prepare.environment()
    except (prepare.CannotPrepareError, OSError, subprocess.SubprocessError) as error:
        skip_or_fail(f"no sandbox environment: {error}")


@pytest.fixture(scope="session")
def image() -> str:
    """Build the image on a real engine, or find the one that is there."""
    try:
        return prepare.image()
    except (prepare.CannotPrepareError, OSError, subprocess.SubprocessError) as error:
        skip_or_fail(f"no container engine or image: {error}")


def modes() -> list[str]:
    """Modes to test; PANDACEA_TEST_MODES names fewer, for a quick look."""
    named = os.environ.get("PANDACEA_TEST_MODES")
    return named.split(",") if named else list(MODES)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=modes())
async def laboratory(request: pytest.FixtureRequest, environment: Path) -> AsyncIterator[Laboratory]:
    """An open sandbox of each mode."""
    mode: str = request.param
    if mode.startswith("docker"):
        request.getfixturevalue("image")
    else:
        find_program("bwrap", "bubblewrap")
    made = await open_laboratory(mode, environment)
    yield made
    await close_laboratory(made)
    assert left_behind(made.instance, made.folder / "state") == [], "after every test of this session, honest and hostile"


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Write a table of 300 people."""
    path = tmp_path / "people.csv"
    path.write_text("age,height,group\n" + "\n".join(f"{20 + n % 50},{150.5 + n % 40},{'abc'[n % 3]}" for n in range(300)) + "\n")
    return path
