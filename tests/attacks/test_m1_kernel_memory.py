"""Where no control group counts it, forty children fill socket pairs (or page tables, or mappings) with memory of the kernel.

Played in sandboxes without control groups, made from nothing and forked from a zygote; the machine's memory is watched from outside.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from pandacea.domain.limits import MIB
from pandacea.domain.outcome import Failure
from pandacea.sandbox.pool import available_memory
from tests.prerequisites import find_program
from tests.sandbox.conftest import environment
from tests.sandbox.harness import Laboratory, close_laboratory, open_laboratory, with_caps

__all__ = ["environment"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

_CHILDREN = """
import ctypes, mmap, os, socket, time
def fill():
    {fill}
    time.sleep(30)
for _ in range({children}):
    if os.fork() == 0:
        try:
            fill()
        finally:
            os._exit(0)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
"""
_SOCKETS = """kept = []
    try:
        while True:
            pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            kept.append(pair)
            for end in pair:
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                try:
                    while True:
                        end.send(bytes(65536))
                except BlockingIOError:
                    pass
    except OSError:
        pass"""
_PAGE_TABLES = """page = mmap.mmap(-1, 1 << 42, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, prot=mmap.PROT_READ)
    for place in range(0, 1 << 42, 1 << 21):
        page[place]"""
_MAPPINGS = """libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    start = libc.mmap(None, ctypes.c_size_t(1 << 28), 0, 0x4022, -1, 0)
    for place in range(0, 1 << 28, 8192):
        libc.mprotect(ctypes.c_void_p(start + place), ctypes.c_size_t(4096), 1)"""
_LIMITS = with_caps(memory_bytes=1024 * MIB, workspace_bytes=256 * MIB, tmp_bytes=64 * MIB, time_seconds=50.0)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["bubblewrap-cold", "bubblewrap-warm"])
async def bare(request: pytest.FixtureRequest, environment: Path) -> AsyncIterator[Laboratory]:
    """A sandbox told to make no control group."""
    find_program("bwrap", "bubblewrap")
    made = await open_laboratory(request.param, environment, name="m1", cgroups=False)
    yield made
    await close_laboratory(made)


@pytest.mark.parametrize(
    ("fill", "children"),
    [
        pytest.param(_SOCKETS, 40, id="socket pairs"),
        pytest.param(_PAGE_TABLES, 4, id="page tables"),
        pytest.param(_MAPPINGS, 50, id="mappings"),
    ],
)
async def test_kernel_memory_counts(bare: Laboratory, fill: str, children: int) -> None:
    """The run ends by its memory limit, and the machine never lacks much more than that limit."""
    least = before = available_memory()
    running = asyncio.create_task(bare.run(_CHILDREN.format(fill=fill, children=children), limits=_LIMITS))
    while not running.done():
        least = min(least, available_memory())
        await asyncio.sleep(0.01)
    outcome = running.result()
    assert outcome.failure is Failure.MEMORY_LIMIT, outcome
    assert before - least < 1536 * MIB, f"{(before - least) // MIB} MiB were taken"


async def test_an_honest_script_with_as_many_processes_is_left_alone(bare: Laboratory) -> None:
    """Forty children with a socket pair each and a few pipes hold next to nothing."""
    fill = "kept = [socket.socketpair(), os.pipe(), os.pipe()]\n    return"
    outcome = await bare.run(_CHILDREN.format(fill=fill, children=40), limits=_LIMITS)
    assert outcome.failure is None, outcome


async def test_descriptors_are_few(bare: Laboratory) -> None:
    """What no watch counts (epoll items) is bounded by how many descriptors there are to make them of."""
    outcome = await bare.run("import resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE))")
    assert re.fullmatch(rb"\(128, 128\)\n", outcome.output), outcome
