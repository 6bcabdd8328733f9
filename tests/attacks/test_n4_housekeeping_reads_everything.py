"""A Spender lets hundreds of large outputs be held, and every minute the node reads all of them into memory to see how old they are.

A room of 1 GiB holds a thousand outputs of the largest size; housekeeping, and each command at the desk, took whole rows to look at a date
or an id.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pandacea.app.control.server import ControlServer
from pandacea.domain.job import JobState
from pandacea.domain.limits import MIB
from pandacea.flows.release import refuse_expired
from tests.jobs.conftest import Served, served
from tests.jobs.test_result_quotas import MINE, insert_result

__all__ = ["served"]

HELD, MOST = 64, 8 * MIB
"""Results of 1 MiB each, and what looking at all of them may take."""
VERBS = (
    *("list_products", "describe_product", "reload_products"),
    *("describe_lease", "describe_contested", "reread_leases", "approve_lease", "cancel_lease", "acknowledge_lease"),
)
"""What the desk of this test is never asked."""


async def looks_for_forgotten(served: Served, _: str) -> object:
    """What housekeeping does each minute."""
    return await refuse_expired(served.world.release)


async def lists(served: Served, _: str) -> object:
    """What `pandacea results list` does."""
    listed = (await desk(served).handle("results list", {}))["results"]
    assert len(listed) == HELD
    return listed


async def shows(served: Served, computation_id: str) -> object:
    """`pandacea results show`, by its id."""
    return await desk(served).handle("results show", {"id": computation_id})


def desk(served: Served) -> ControlServer:
    nothing: Any = type("Nothing", (), dict.fromkeys(VERBS))()
    return ControlServer(served.world.release, served.clock, nothing, nothing)


@pytest.mark.parametrize("act", [looks_for_forgotten, lists, shows])
async def test_what_is_held_is_not_read_to_be_counted(served: Served, act: Callable[[Served, str], Awaitable[object]]) -> None:
    """As it was played, with fewer: the memory that it takes is that of one result."""
    ids = [
        await insert_result(served, MINE, MIB, state=JobState.HELD, output=bytes(MIB), started_at=served.clock.now())
        for _ in range(HELD)
    ]
    tracemalloc.start()
    try:
        await act(served, ids[HELD // 2])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < MOST, f"{most / MIB:.0f} MiB to look at {HELD} results of 1 MiB"
