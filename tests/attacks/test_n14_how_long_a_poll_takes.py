"""A Spender polls a computation that reads as running and measures how long the answers take: longer, once there is a result to read.

The whole row was read to say `running`: with an output of 1 MiB the quickest of polls took 7.8 ms instead of 1.3, on loopback, so that a
single one told whether the held run was over, and about how much it had printed.
"""

from __future__ import annotations

import tracemalloc

import pytest

from pandacea.domain.job import JobState
from pandacea.domain.limits import MIB
from tests.jobs.conftest import EXECUTE, Served, results, served
from tests.jobs.test_result_quotas import MINE, insert_result

__all__ = ["served"]

OUTPUT_BYTES = 8 * MIB
"""So much that whatever else a request allocates (statements compiled for the first time: 0.5 MiB) is small beside it."""


@pytest.mark.parametrize("asks", ["status", "artifact", "retry", "cancel"])
async def test_a_held_result_is_not_read_for_its_spender(served: Served, asks: str) -> None:
    """As it was played, in memory instead of time: nothing of what is held is read, whatever is asked of it."""
    body = served.body()
    await served.send("GET", results("0x" + "0" * 64))  # what a first request brings with it
    held = await insert_result(
        served,
        MINE,
        OUTPUT_BYTES,
        state=JobState.HELD,
        release="hold",
        output=bytes(OUTPUT_BYTES),
        started_at=served.clock.now(),
        idempotency_key="again",
        lease_id=body["lease_id"],
        contract=served.node.submit.contract,
    )
    tracemalloc.start()
    try:
        if asks == "status":
            answer = await served.send("GET", results(held))
            assert answer.json["status"] == "running"
        elif asks == "artifact":
            assert (await served.send("GET", results(held, "/artifacts/a"))).code == "artifact-unknown"
        elif asks == "retry":
            assert (await served.send("POST", EXECUTE, body, Prefer="respond-async", Idempotency_Key="again")).status in {202, 409}
        else:
            assert (await served.send("DELETE", results(held))).status == 204
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < OUTPUT_BYTES // 4, f"{most / MIB:.1f} MiB were read"
