"""Rows 12, 13, 17 and 20: logs twice, in any order, very many, or odd."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from pandacea.chain.rereading.parts import RereadOptions
from pandacea.domain.chain_view import ChainUpdate
from pandacea.domain.lease import LeaseStatus
from pandacea.flows.following.follow import apply_update
from tests.chain.anvil import STRANGER, Anvil
from tests.chain.emitter import Emitter, committed, created, finalized, lease_number, log, raised, resolved, simple, terms
from tests.chain.node import FollowingNode, assert_equals_rebuild
from tests.faults.proxy import FaultProxy, ProxyAnswer, answer_late

COMPUTATION = "0x" + "22" * 32

QUIET: Any = {"reread": RereadOptions(range_interval=600.0)}
"""Without a backfill check: only the follower's own calls."""


async def test_row_12_duplicates_and_replay(anvil: Anvil, tmp_path: Path) -> None:
    """With every log twice in every answer, and whole updates applied again, rows and cache are the same."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    await agreement.commit(lease, COMPUTATION)
    await anvil.mine_blocks(6)
    async with FaultProxy(anvil.url) as proxy:
        proxy.after.append(lambda method, _, result: result + result if method == "eth_getLogs" else result)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            other = await agreement.create()
            await agreement.approve(other)
            await node.wait_for_head()
            before = await assert_equals_rebuild(node, tmp_path)
            assert before[lease].lease.committed_count == 1
            records, view = node.follower.chain_store, node.view
            assert records is not None
            async with records.unit_of_work() as tx:
                held = await tx.chain.list_events_up_to(view.tip.number)
            assert held, "there is something to replay"
            await apply_update(ChainUpdate(blocks=view.blocks, events=tuple(held)), _without(view), records, node.lease_cache, None)
            await apply_update(ChainUpdate(events=tuple(held + held)), view, records, node.lease_cache, None)
            assert await node.read_rows() == before
            await assert_equals_rebuild(node, tmp_path)


def _without(view: Any) -> Any:
    from pandacea.domain.chain_view import ChainView

    return ChainView(view.base, (), view.safe, view.finalized)


async def test_row_13_out_of_order(anvil: Anvil, tmp_path: Path) -> None:
    """Answers come in any order: they are sorted by block and log index before anything is folded."""
    emitter = await Emitter.deploy(anvil)
    lease, other = lease_number(1), lease_number(2)
    await emitter.emit(created(lease), terms(lease), simple("LeaseApproved", lease), committed(lease, COMPUTATION))
    await emitter.emit(raised(lease), resolved(lease, valid=False), created(other), simple("LeaseApproved", other))
    await anvil.mine_blocks(3)
    rng = random.Random(3)
    async with FaultProxy(anvil.url) as proxy:

        def shuffle(method: str, _params: list[Any], result: Any) -> Any:
            return rng.sample(result, len(result)) if method == "eth_getLogs" else result

        proxy.after.append(shuffle)
        async with FollowingNode(emitter.agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            await node.wait_for_head()
            await emitter.emit(simple("LeaseCancelled", other), simple("LeaseExecuted", lease), finalized(lease))
            rows = await assert_equals_rebuild(node, tmp_path)
    assert rows[lease].lease.status is LeaseStatus.SETTLED
    assert rows[other].lease.status is LeaseStatus.CANCELLED


async def test_row_20_odd_contract_events(anvil: Anvil, tmp_path: Path) -> None:
    """Other topics, other shapes, other orders: counted or tolerated, never a crash; other Earners' leases are left out."""
    emitter = await Emitter.deploy(anvil)
    await emitter.emit(simple("LeaseApproved", lease_number(99)))
    lease, foreign, late = lease_number(1), lease_number(2), lease_number(3)
    await emitter.emit(
        log("0x" + "ab" * 32, lease, data="00" * 32),  # an event of another version
        log("LeaseCreated", lease, data="00" * 64),  # the same signature with other indexed arguments
        log("ResultCommitted", lease, COMPUTATION),  # no data
        created(lease),
        terms(lease),
        simple("LeaseExecuted", lease),  # before Approved
        simple("LeaseApproved", lease),
        created(foreign, earner=STRANGER.address),
        simple("LeaseApproved", foreign),
        raised(foreign),
        simple("LeaseApproved", late),  # before Created
        created(late),
        raised(late, reason="x" * 500),
    )
    async with FollowingNode(emitter.agreement, tmp_path / "node.db") as node:
        await emitter.emit(log("LeaseTerms", late, data="00" * 64), simple("LeaseCancelled", lease_number(98)))
        rows = await assert_equals_rebuild(node, tmp_path)
        assert set(rows) == {lease, late}
        assert rows[lease].lease.status is LeaseStatus.EXECUTED
        assert rows[lease].lease.approved_block is not None
        assert rows[late].lease.approved_block is None, "an approval before its lease approves nothing"
        assert node.follower.collect_metrics().odd_logs >= 3, "each is counted whenever it is read"


async def test_row_20_starts_at_the_deploy_block(anvil: Anvil, tmp_path: Path) -> None:
    """The deploy block is found by the contract's code, and nothing before it is asked for."""
    await anvil.mine_blocks(200)
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    await anvil.mine_blocks(3)
    async with FaultProxy(anvil.url) as proxy, FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
        await node.wait_for_head()
        assert node.known_lease(lease) is not None
        asked = [
            int(where[0]["fromBlock"], 16) for method, where in proxy.calls if method == "eth_getLogs" and "fromBlock" in where[0]
        ]
        assert asked
        assert min(asked) == agreement.block
        assert node.follower.chain_store is not None
        assert node.follower.chain_store.deploy_block == agreement.block


async def narrow(method: str, params: list[Any]) -> ProxyAnswer | None:
    """A provider of small ranges: many answers, and many updates, for one backfill."""
    if method != "eth_getLogs" or "fromBlock" not in params[0]:
        return None
    first, last = (int(params[0][name], 16) for name in ("fromBlock", "toBlock"))
    return ProxyAnswer(error={"code": -32005, "message": "block range is limited to 20 blocks"}) if last - first >= 20 else None


async def test_row_17_a_huge_gap(anvil: Anvil, tmp_path: Path) -> None:
    """A backfill is read range by range, each durable by itself: killed in the middle, the node continues from there."""
    emitter = await Emitter.deploy(anvil)
    for number in range(40):
        await emitter.emit(*(record for n in range(50) for record in _life(number * 50 + n)))
        await anvil.mine_blocks(20)
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(emitter.agreement, tmp_path / "node.db", urls=[proxy.url], **QUIET) as node,
    ):
        proxy.before += [narrow, answer_late(0.02, ["eth_getLogs"])]
        await node.wait_until(
            lambda: node.lease_cache.chain_view is not None and node.view.base.number > 12, what="somewhere in the middle"
        )
        reached = node.view.base.number
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(emitter.agreement, tmp_path / "node.db", urls=[proxy.url], **QUIET) as node,
    ):
        await node.wait_for_head()
        asked = [
            int(where[0]["fromBlock"], 16) for method, where in proxy.calls if method == "eth_getLogs" and "fromBlock" in where[0]
        ]
        assert min(asked) >= reached, "nothing durable is read again to catch up"
        assert len(node.lease_cache) == 2000
        await assert_equals_rebuild(node, tmp_path)


def _life(number: int) -> list[bytes]:
    lease = lease_number(number)
    return [created(lease), terms(lease), simple("LeaseApproved", lease), committed(lease, COMPUTATION)]
