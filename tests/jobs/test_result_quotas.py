"""Everything that grows has an owner, a room and an end: each room at its limit, with a neighbour beside it who is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pandacea.domain.charge import Charge
from pandacea.domain.code_approval import CodeState
from pandacea.domain.ids import Address, AssetId, ComputationId, Hash32, LeaseId, ProductId
from pandacea.domain.job import Job, JobState, Mode
from pandacea.domain.limits import MIB, Limits
from pandacea.domain.product import Mock, Policy
from pandacea.flows.approve_code import KEEP_STRANGERS_SECONDS, KEEP_UNDECIDED_SECONDS, decide_code
from pandacea.flows.retention import (
    KEEP_REHEARSALS_SECONDS,
    KEEP_SCRIPTS_SECONDS,
    MAX_UNCHARGED_ROWS,
    MIN_KEEP_SECONDS,
    RetentionPorts,
    apply_retention,
)
from pandacea_sdk.protocol.hashing import KeySigner
from tests.fakes import cached_lease
from tests.jobs.conftest import EXECUTE, OTHER, SPENDER, JobAnswer, Served

MINE, NEIGHBOURS = Address(SPENDER.address), Address(OTHER.address)
NEIGHBOURS_LEASE = LeaseId("0x" + "2e" * 32)
LARGEST = Limits().largest_result
IDS = count(1)
INPUTS = [{"asset_id": "a", "variable_name": "table"}]


@pytest.fixture
def shared(served: Served, tmp_path: Path) -> Served:
    """Two Spenders with a lease each, mock rows, and room for four of the largest results, two of each Spender."""
    served.world.lease_cache.change_lease(cached_lease(lease_id=NEIGHBOURS_LEASE, spender=NEIGHBOURS, max_computations=50))
    table = tmp_path / "mock.arrow"
    table.write_bytes(b"mock")
    product = served.world.catalogue.product
    asset = replace(product.assets[AssetId("a")], mock=Mock("0" * 64, tmp_path / "mock.csv", table))
    served.world.catalogue.product = replace(product, assets={**product.assets, AssetId("a"): asset})
    for name, size in (("max_bytes", 4 * LARGEST), ("max_bytes_per_spender", 2 * LARGEST)):
        object.__setattr__(served.world.submit.results, name, size)
    return served


async def submit_answer(served: Served, signer: KeySigner = SPENDER, **members: Any) -> JobAnswer:
    """A request of one of the two, not waited for."""
    lease = {"lease_id": NEIGHBOURS_LEASE} if signer is OTHER else {}
    return await served.send("POST", EXECUTE, {**served.body(), **lease, **members}, signer=signer, Prefer="respond-async")


async def insert_result(served: Served, spender: Address, size: int, **changes: Any) -> ComputationId:
    """A computation that ended now and whose result takes `size` bytes."""
    now = served.clock.now()
    job = Job(
        computation_id=ComputationId(f"0x{next(IDS):064x}"),
        chain_id=served.node.chain_id,
        contract=served.node.contract,
        lease_id=LeaseId("0x" + "77" * 32),  # neither's: it counts for no lease that is asked
        spender=spender,
        request_hash=Hash32("0x" + "0" * 64),
        body_sha256="0" * 64,
        mode=Mode.LIVE,
        product_id=ProductId("p"),
        product_version=Hash32("0x" + "0" * 64),
        code="print(1)",
        params='{"a": 1}',
        inputs=[],
        uploads={},
        policy_decision="",
        release="auto",
        live_output="none",
        show_messages=True,
        max_computations=1,
        created_at=now,
        queue_deadline=now,
        state=JobState.COMPLETED,
        charge=Charge.CHARGED,
        finished_at=now,
        stored_bytes=size,
    )
    job = replace(job, **changes)
    async with served.world.submit.database.unit_of_work() as work:
        await work.jobs.insert_job(job)
        await work.commit()
    return job.computation_id


async def results_removed(served: Served, computations: Sequence[ComputationId]) -> list[bool]:
    """Of each, whether its result is gone."""
    return [(await served.row(one)).removed_at is not None for one in computations]


async def rows_exist(served: Served, computations: Sequence[ComputationId]) -> list[bool]:
    """Of each, whether its row is there."""
    async with served.world.submit.database.read_session() as session:
        return [await session.jobs.find_job(one) is not None for one in computations]


async def run_retention(served: Served) -> None:
    """Apply the node's retention once."""
    world = served.world
    await apply_retention(
        RetentionPorts(
            world.submit.database,
            served.clock,
            world.submit.results,
            world.submit.limits,
            world.uploads,
            replace(world.release, hold_seconds=10 * 86_400.0),
            keep_results_seconds=7 * 86_400.0,
        )
    )


# ------------------------------------------------------------------ results


async def test_a_spenders_results_fill_that_spenders_room(shared: Served) -> None:
    """One byte more than leaves room for another: 507 for its owner, with what to do, and nothing for the neighbour."""
    await insert_result(shared, MINE, LARGEST)
    assert (await submit_answer(shared)).status == 202, "exactly at the limit"
    await insert_result(shared, MINE, 1)
    full = await submit_answer(shared)
    assert (full.status, full.code) == (507, "results-full")
    assert int(full.headers["retry-after"]) > 0
    assert (await submit_answer(shared, OTHER)).status == 202


async def test_a_spenders_own_oldest_result_gives_way(shared: Served) -> None:
    """After its hour, and no earlier; the neighbour's older one stays for the time promised."""
    neighbours = await insert_result(shared, NEIGHBOURS, LARGEST)
    mine = [await insert_result(shared, MINE, LARGEST) for _ in range(2)]
    await run_retention(shared)
    assert await results_removed(shared, [neighbours, *mine]) == [False, False, False]
    shared.clock.added += MIN_KEEP_SECONDS + 1
    await run_retention(shared)
    assert await results_removed(shared, [neighbours, *mine]) == [False, True, False]
    assert (await submit_answer(shared)).status == 202


async def test_held_results_count_and_stay(shared: Served) -> None:
    """Nobody has seen them: they give way to nothing, and block nobody but their own Spender."""
    held = [await insert_result(shared, MINE, LARGEST, state=JobState.HELD) for _ in range(2)]
    shared.clock.added += 2 * MIN_KEEP_SECONDS
    await run_retention(shared)
    assert await results_removed(shared, held) == [False, False]
    assert (await submit_answer(shared)).code == "results-full"
    assert (await submit_answer(shared, OTHER)).status == 202


async def test_when_all_rooms_are_full_whoever_holds_most_gives_way(shared: Served) -> None:
    """The room of all is smaller than the rooms of each: who holds less than an equal share loses nothing."""
    object.__setattr__(shared.world.submit.results, "max_bytes", 2 * LARGEST)
    small = await insert_result(shared, NEIGHBOURS, 10)
    large = await insert_result(shared, MINE, LARGEST)
    shared.clock.added += MIN_KEEP_SECONDS + 1
    await run_retention(shared)
    assert await results_removed(shared, [small, large]) == [False, True]


# ------------------------------------------------------------------ rehearsals


async def test_rehearsals_share_a_pot_of_their_own(shared: Served) -> None:
    """A Spender's newer rehearsal takes the place of that Spender's oldest, at once; no neighbour's goes, and no paid result."""
    object.__setattr__(
        shared.world.submit.results, "max_rehearsal_bytes_per_spender", 3 * MIB + Limits().of_rehearsals().largest_result
    )
    free = {"mode": Mode.MOCK, "charge": Charge.FREE}
    paid, neighbours = await insert_result(shared, MINE, LARGEST), await insert_result(shared, NEIGHBOURS, 3 * MIB, **free)
    mine = [await insert_result(shared, MINE, 2 * MIB, **free) for _ in range(2)]
    assert (await submit_answer(shared, mode="mock", inputs=INPUTS)).status == 202
    assert await rows_exist(shared, [paid, neighbours, *mine]) == [True, True, False, True]


async def test_a_full_pot_of_rehearsals_refuses_nobody(shared: Served) -> None:
    """Whoever holds most of it loses the oldest; a newcomer's rehearsal is accepted."""
    object.__setattr__(shared.world.submit.results, "max_rehearsal_bytes", 20 * MIB)
    free = {"mode": Mode.MOCK, "charge": Charge.FREE}
    theirs = [await insert_result(shared, NEIGHBOURS, 9 * MIB, **free) for _ in range(2)]
    assert (await submit_answer(shared, mode="mock", inputs=INPUTS)).status == 202
    assert await rows_exist(shared, theirs) == [False, True]


async def test_rehearsals_go_within_minutes_rows_and_all(shared: Served) -> None:
    """Nothing of them counts for anything later; what was paid for keeps its row, manifest and charge."""
    rehearsed = await insert_result(shared, MINE, 10, mode=Mode.MOCK, charge=Charge.FREE)
    paid = await insert_result(shared, MINE, 10)
    shared.clock.added += KEEP_REHEARSALS_SECONDS - 1
    await run_retention(shared)
    assert await rows_exist(shared, [rehearsed, paid]) == [True, True]
    shared.clock.added += 2
    await run_retention(shared)
    assert await rows_exist(shared, [rehearsed, paid]) == [False, True]


async def test_a_rehearsals_box_has_less_time_and_less_room(shared: Served) -> None:
    """The same sandbox; what may leave it is small, and a run that nobody pays for does not take a worker for long."""
    await submit_answer(shared, mode="mock", inputs=INPUTS)
    limits = (await shared.stage.next_play()).job.limits
    assert (limits.artifacts_bytes, limits.artifact_bytes, limits.time_seconds) == (4 * MIB, 4 * MIB, 60)
    assert limits.memory_bytes == shared.world.execute.limits.memory_bytes


# ------------------------------------------------------------------ rows


async def test_rows_that_cost_nothing_are_few(shared: Served) -> None:
    """Asked for and cancelled, over and over: the newest stay for a while, without their scripts."""
    free = {"charge": Charge.RETURNED, "state": JobState.CANCELLED}
    neighbours = await insert_result(shared, NEIGHBOURS, 0, **free)
    mine = [await insert_result(shared, MINE, 0, **free) for _ in range(MAX_UNCHARGED_ROWS + 3)]
    await run_retention(shared)
    assert await rows_exist(shared, [neighbours, *mine]) == [True, False, False, False, *[True] * MAX_UNCHARGED_ROWS]
    assert {(await shared.row(one)).code for one in mine[3:]} == {""}
    shared.clock.added += 7 * 86_400 + 1
    await run_retention(shared)
    assert not any(await rows_exist(shared, [neighbours, *mine]))


async def test_scripts_of_what_was_paid_for_go_in_time(shared: Served) -> None:
    """Long after every dispute; the manifest, which names their digests, and the charge stay."""
    paid = await insert_result(shared, MINE, 10, manifest="{}", receipt={"signature": "0x"})
    shared.clock.added += KEEP_SCRIPTS_SECONDS - 10
    await run_retention(shared)
    assert (await shared.row(paid)).code == "print(1)"
    shared.clock.added += 20
    await run_retention(shared)
    row = await shared.row(paid)
    assert (row.code, row.params, row.manifest, row.charge) == ("", "{}", "{}", Charge.CHARGED)


async def test_scripts_handed_in_go_in_time(shared: Served) -> None:
    """Undecided ones of strangers after a week, of Spenders after a month, rejected ones a month later; approved ones are the Earner's."""
    shared.rules(policy=Policy.APPROVED_CODE)

    async def hands_in(number: int, signer: KeySigner) -> str:
        body = {"product_id": "p", "code": f"print({number})", "inputs": INPUTS}
        return str((await shared.send("POST", "/api/v1/privacy/code", body, signer=signer)).json["code_id"])

    stranger, mine = await hands_in(1, KeySigner("77" * 32)), await hands_in(2, SPENDER)
    rejected, approved = await hands_in(3, SPENDER), await hands_in(4, SPENDER)
    database = shared.world.submit.database
    await decide_code(rejected, CodeState.REJECTED, "no", database, shared.clock)
    await decide_code(approved, CodeState.APPROVED, "", database, shared.clock)

    async def left() -> list[bool]:
        async with database.read_session() as session:
            return [await session.code.find_submission(one) is not None for one in (stranger, mine, rejected, approved)]

    shared.clock.added += KEEP_STRANGERS_SECONDS + 1
    await run_retention(shared)
    assert await left() == [False, True, True, True]
    shared.clock.added += KEEP_UNDECIDED_SECONDS
    await run_retention(shared)
    assert await left() == [False, False, False, True]
