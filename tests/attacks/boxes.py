"""Kinds of sandboxes that an attack is played in: those that control groups hold, each opened for one module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.prerequisites import find_program
from tests.sandbox.conftest import environment, image, modes
from tests.sandbox.harness import Laboratory, close_laboratory, open_laboratory

__all__ = ["environment", "image", "laboratory"]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[mode for mode in modes() if mode != "docker-warm"])
async def laboratory(request: pytest.FixtureRequest, environment: Path) -> AsyncIterator[Laboratory]:
    """An open sandbox; a warm container is made as a cold one is, a warm bubblewrap sandbox is forked from a zygote."""
    if request.param.startswith("docker"):
        request.getfixturevalue("image")
    else:
        find_program("bwrap", "bubblewrap")
    made = await open_laboratory(request.param, environment, name="attack", pool=1)
    yield made
    await close_laboratory(made)
