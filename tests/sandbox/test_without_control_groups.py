"""Where no control group may be made, limits on resources and a watch stand in, cold and warm."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pandacea.domain.outcome import Failure
from tests.prerequisites import find_program
from tests.sandbox.harness import Laboratory, close_laboratory, open_laboratory

pytestmark = pytest.mark.asyncio(loop_scope="module")
THREADS = "import threading, time\nfor _ in range(200):\n    threading.Thread(target=time.sleep, args=(1,)).start()"
BOMB = """
import os, time
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
except OSError as error:
    print(error.errno)
"""
HOARD = "import os, time\nif os.fork() == 0:\n    hoard = bytearray(b'1') * (900 << 20)\nos.wait()\ntime.sleep(20)"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["bubblewrap-cold", "bubblewrap-warm"])
async def bare(request: pytest.FixtureRequest, environment: Path) -> AsyncIterator[Laboratory]:
    """A sandbox told to make none."""
    find_program("bwrap", "bubblewrap")
    made = await open_laboratory(request.param, environment, name="bare", cgroups=False)
    yield made
    await close_laboratory(made)


async def test_the_node_says_what_is_weaker(bare: Laboratory) -> None:
    """One sentence, with what to do."""
    assert any("no control group" in warning and "Delegate=yes" in warning for warning in bare.sandbox.warnings)


@pytest.mark.parametrize("code", [THREADS, BOMB])
async def test_processes_are_capped(bare: Laboratory, code: str) -> None:
    """By RLIMIT_NPROC, in a sandbox with a bubblewrap process of its own and in one that a zygote forked."""
    outcome = await bare.run(code)
    assert outcome.failure is Failure.PROCESS_LIMIT or outcome.output == b"11\n", outcome


async def test_memory_is_capped(bare: Laboratory) -> None:
    """By the watch, whichever process takes it."""
    outcome = await bare.run(HOARD)
    assert outcome.failure is Failure.MEMORY_LIMIT, outcome
