"""`mode: mock`: the same sandbox and limits on mock rows, uncharged, unsigned, every message shown; never the leased rows."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pandacea.domain.charge import Charge
from pandacea.domain.ids import AssetId
from pandacea.domain.job import JobState
from pandacea.domain.outcome import Failure, Outcome, ScriptError
from pandacea.domain.product import Mock, Policy, Rehearsal, Release
from tests.jobs.conftest import EXECUTE, OTHER, JobAnswer, Served
from tests.jobs.stage import Play

INPUTS = [{"asset_id": "a", "variable_name": "table"}]
FAILED = Outcome(
    Failure.SCRIPT_ERROR, "", b"Traceback", script_error=ScriptError("KeyError", 3, "'Bob'"), exit_status=1, code_started=True
)


@pytest.fixture
def mocked(served: Served, tmp_path: Path) -> Served:
    """A product with the strictest rules, whose asset `a` has mock rows."""
    rehearses(served, tmp_path, Rehearsal.LEASE)
    return served


def rehearses(served: Served, folder: Path, who: Rehearsal) -> None:
    """The product's rules, and mock rows for asset `a` alone."""
    served.rules(policy=Policy.APPROVED_CODE, release=Release.HOLD, rehearsal=who, show_messages=False)
    table = folder / "mock.arrow"
    table.write_bytes(b"mock")
    product = served.world.catalogue.product
    asset = replace(product.assets[AssetId("a")], mock=Mock("0" * 64, folder / "mock.csv", table))
    served.world.catalogue.product = replace(product, assets={**product.assets, AssetId("a"): asset})


async def rehearsed(served: Served) -> tuple[asyncio.Task[JobAnswer], Play]:
    """A rehearsal under way, waited for in one request."""
    body = served.body("print(table)", inputs=INPUTS, mode="mock")
    waiting = asyncio.create_task(served.send("POST", EXECUTE, body))
    return waiting, await served.stage.next_play()


async def test_a_rehearsal_runs_on_mock_rows_and_costs_nothing(mocked: Served) -> None:
    """Any script, at once, on a product that holds results and runs approved code only: mock rows tell nothing."""
    mocked.lease(max_computations=1)
    waiting, play = await rehearsed(mocked)
    assert [table.path.name for table in play.job.inputs] == ["mock.arrow"]
    assert play.job.capture_stderr
    play.writes(b"rows\n")
    play.ends(out=b"1")
    answer = await waiting
    assert answer.json["results"] == {"output": "rows\n", "artifacts": {"out": "MQ=="}}
    assert {"manifest", "receipt", "result_hash"}.isdisjoint(answer.json)
    assert answer.json["mode"] == "mock"
    row = await mocked.reaches(answer.json["computation_id"], JobState.COMPLETED)
    assert (row.charge, row.receipt) == (Charge.FREE, None)
    lease = (await mocked.send("GET", f"/api/v1/leases/{row.lease_id}")).json
    assert (lease["used"], lease["reserved"]) == (0, 0)


async def test_a_rehearsal_shows_every_message(mocked: Served) -> None:
    """That is what it is for; a failure takes nothing from the allowance."""
    waiting, play = await rehearsed(mocked)
    play.ends(FAILED)
    answer = await waiting
    assert answer.json["success"] is False
    assert answer.json["error"]["exception_message"] == "'Bob'"
    row = await mocked.row(answer.json["computation_id"])
    assert row.charge is Charge.FREE


async def test_a_used_up_lease_still_rehearses(mocked: Served) -> None:
    """Nothing is used; a cancelled one does not."""
    mocked.lease(max_computations=1, committed_count=1)
    waiting, play = await rehearsed(mocked)
    play.ends()
    assert (await waiting).status == 200
    mocked.lease(in_dispute=True)
    refused = await mocked.send("POST", EXECUTE, mocked.body(inputs=INPUTS, mode="mock"))
    assert refused.code == "lease-disputed"


async def test_what_cannot_be_rehearsed_says_so(mocked: Served, tmp_path: Path) -> None:
    """An asset without mock rows, and a product that allows none."""
    other = [{"asset_id": "b", "variable_name": "table"}]
    assert (await mocked.send("POST", EXECUTE, mocked.body(inputs=other, mode="mock"))).code == "rehearsal-off"
    outside = [{"asset_id": "c", "variable_name": "table"}]
    assert (await mocked.send("POST", EXECUTE, mocked.body(inputs=outside, mode="mock"))).code == "asset-outside-product"
    rehearses(mocked, tmp_path, Rehearsal.OFF)
    assert (await mocked.send("POST", EXECUTE, mocked.body(inputs=INPUTS, mode="mock"))).code == "rehearsal-off"


async def test_nobody_rehearses_without_a_lease(mocked: Served) -> None:
    """A stranger's script runs nowhere on this node, with or without somebody's lease id; whoever leased goes first."""
    body = {"code": "print(1)", "inputs": INPUTS, "mode": "mock"}
    assert (await mocked.send("POST", EXECUTE, body, signer=OTHER)).code == "unknown-spender"
    assert (await mocked.send("POST", EXECUTE, mocked.body(inputs=INPUTS, mode="mock"), signer=OTHER)).code == "unknown-spender"
    assert (await mocked.send("POST", EXECUTE, body)).code == "missing-field"
