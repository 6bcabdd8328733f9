"""Rows 21 to 24: logs that an endpoint leaves out of several answers, and shows again when nobody would ask any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pandacea.app.control.leases import LeaseControl
from pandacea.app.render import render_answer
from pandacea.chain.rereading.parts import RereadOptions
from pandacea.clock import SystemClock
from pandacea.domain.access import Denied, Granted
from pandacea.domain.ids import LeaseId
from pandacea.domain.lease import LeaseStatus
from pandacea.errors import Refused
from pandacea.flows.following.chain_store import ChainStore
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.products import SqlProductStore
from tests.chain.anvil import PRODUCT, SPENDER, Anvil, AnvilAgreement
from tests.chain.emitter import TOPIC
from tests.chain.node import FollowingNode, assert_equals_rebuild
from tests.faults.proxy import FaultProxy

NEVER = 36_000.0


def only(**some: float) -> RereadOptions:
    """Return options with which nothing is read again but what is named: each test shows that one way alone is enough."""
    settings: dict[str, float] = {
        "range_interval": NEVER,
        "later_seconds": NEVER,
        "turn_seconds": NEVER,
        "wait_seconds": NEVER,
        "scan_step_seconds": NEVER,
        "first_pause": 0.05,
        "longest_pause": 0.2,
    }
    return RereadOptions(**(settings | some))


class LeftOut:
    """Leaves the logs of one event out of answers: of the first `times` that hold one, or for ever (-1)."""

    def __init__(self, event: str, times: int = -1) -> None:
        self.topic, self.times, self.left_out = TOPIC[event], times, 0

    def __call__(self, method: str, _params: list[Any], result: Any) -> Any:
        """Filter a result, as `tests.faults.proxy.After`."""
        if method != "eth_getLogs" or not any(log["topics"][0] == self.topic for log in result) or self.left_out == self.times:
            return result
        self.left_out += 1
        return [log for log in result if log["topics"][0] != self.topic]


def answer_of(node: FollowingNode, lease: str) -> str:
    """Return what the node answers the Spender who asks to run: `granted`, or the code of the denial."""
    decision = node.decide_run(lease, SPENDER.address)
    return decision.code if isinstance(decision, Denied) else "granted" if isinstance(decision, Granted) else "unknown"


def status_is(node: FollowingNode, lease: str, status: LeaseStatus) -> Callable[[], bool]:
    """Whether the cache gives a lease a status."""

    def same() -> bool:
        known = node.known_lease(lease)
        return known is not None and known.status is status

    return same


def is_contested(node: FollowingNode, lease: str) -> bool:
    """Whether the lease is denied by what an endpoint says beside the rows."""
    known = node.known_lease(lease)
    return known is not None and known.contested


async def approved_lease(agreement: AnvilAgreement, node: FollowingNode) -> str:
    """Create and approve a lease; wait until it is granted."""
    lease = await agreement.create()
    await agreement.approve(lease)
    await node.wait_for_head()
    await node.wait_for_proof(lease)
    assert answer_of(node, lease) == "granted"
    return lease


async def settle(node: FollowingNode) -> None:
    """Mine until everything up to now is settled."""
    head = await node.agreement.chain.head_number()
    await node.agreement.chain.mine_blocks(12)
    await node.wait_until(lambda: node.view.base.number >= head, what="settled")


async def test_row_21_a_lease_without_terms_is_read_again_at_once(anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path) -> None:
    """One transaction emits LeaseCreated and LeaseTerms: where the second is missing, that lease is read again until it is there."""
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], reread=only()) as node,
    ):
        await node.wait_for_head()
        hidden = LeftOut("LeaseTerms", 4)
        proxy.after.append(hidden)
        lease = await agreement.create()
        await agreement.approve(lease)
        await node.wait_until(lambda: (known := node.known_lease(lease)) is not None and known.data_product_id == PRODUCT)
        assert hidden.left_out == 4, "by the block, by its bloom filter, and by two readings of the lease"
        await assert_equals_rebuild(node, tmp_path)


async def test_row_21_a_contradiction_of_before_is_found_at_start(anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path) -> None:
    """What a backfill stored without its terms is found in the rows, settled or not, once the head is reached."""
    settled = await agreement.create()
    await agreement.approve(settled)
    await anvil.mine_blocks(8)
    above = await agreement.create()
    await agreement.approve(above)
    async with FaultProxy(anvil.url) as proxy:
        hidden = LeftOut("LeaseTerms")
        proxy.after.append(hidden)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], reread=only(first_pause=NEVER)) as node:
            await node.wait_for_head()
            assert all(record.terms[0] is None for record in (await node.read_rows()).values())
        proxy.after.clear()
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], upgraded=True, reread=only()) as node:
            await node.wait_for_proof(settled)
            await node.wait_for_proof(above)
            await assert_equals_rebuild(node, tmp_path)


async def test_row_21_an_approval_of_an_unknown_lease_finds_its_creation(
    anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path
) -> None:
    """An event of a lease whose creation nobody showed: the contract says whose it is, and one of ours is read from the beginning."""
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], reread=only()) as node,
    ):
        await node.wait_for_head()
        hidden = LeftOut("LeaseCreated")
        proxy.after.append(hidden)
        lease = await agreement.create()
        await settle(node)
        assert lease not in await node.read_rows()
        hidden.times = hidden.left_out
        foreign = await agreement.create(earner=SPENDER.address)
        await agreement.approve(foreign, by=SPENDER)
        await agreement.approve(lease)
        await node.wait_for_proof(lease)
        assert set(await assert_equals_rebuild(node, tmp_path)) == {lease}
        asked = [params for method, params in proxy.calls if method == "eth_getLogs" and foreign in str(params)]
        assert not asked, "another Earner's lease costs one call and no reading"


async def test_row_22_a_cancellation_left_out_of_three_answers_is_denied(
    anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path
) -> None:
    """One endpoint leaves LeaseCancelled out of three answers, honest afterwards: getLease denies within a turn, the row is mended."""
    turn = 2.0
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], reread=only(turn_seconds=turn)) as node,
    ):
        lease = await approved_lease(agreement, node)
        hidden = LeftOut("LeaseCancelled", 3)
        proxy.after.append(hidden)
        await agreement.cancel(lease)
        await node.wait_for_head()
        assert node.known_lease(lease) is not None
        await node.wait_until(lambda: answer_of(node, lease) != "granted", 2 * turn, "the denial")
        await settle(node)
        await node.wait_until(lambda: answer_of(node, lease) == "lease-cancelled" and not is_contested(node, lease), what="the row")
        assert hidden.left_out == 3
        await assert_equals_rebuild(node, tmp_path)


async def test_row_22_what_an_endpoint_hides_for_ever_is_denied_by_the_contract(
    anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path
) -> None:
    """While the log stays hidden the lease is doubted; the endpoint alone cannot take that back, and the row is mended when it is shown."""
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], reread=only(turn_seconds=0.5)) as node,
    ):
        lease = await approved_lease(agreement, node)
        hidden = LeftOut("LeaseCancelled")
        proxy.after.append(hidden)
        await agreement.cancel(lease)
        await settle(node)
        await node.wait_until(lambda: answer_of(node, lease) == "lease-doubted", what="the denial")
        assert (await node.read_rows())[lease].lease.status is LeaseStatus.APPROVED
        hidden.times = hidden.left_out
        await node.wait_until(lambda: answer_of(node, lease) == "lease-cancelled" and not is_contested(node, lease), what="the row")
        await assert_equals_rebuild(node, tmp_path)


async def test_row_22_before_a_run_the_contract_is_asked(anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path) -> None:
    """What no log shows stops a run all the same: the lease is asked for once before it starts, and not again for some seconds."""
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], reread=only()) as node,
    ):
        lease = await approved_lease(agreement, node)
        proxy.after.append(LeftOut("LeaseCancelled"))
        await agreement.cancel(lease)
        await node.wait_for_head()
        assert answer_of(node, lease) == "granted", "nobody has asked yet"
        before = count_calls(proxy, "eth_call")
        await node.follower.check_before_run(LeaseId(lease))
        assert answer_of(node, lease) == "lease-doubted"
        proxy.refuse = True
        await node.follower.check_before_run(LeaseId(lease))  # just asked: neither a call nor a failure
        proxy.refuse = False
        assert count_calls(proxy, "eth_call") <= before + 2, "one, and one of the lease's own reading"


def count_calls(proxy: FaultProxy, method: str) -> int:
    """Count the calls of a method so far."""
    return sum(called == method for called, _ in proxy.calls)


async def test_row_23_a_block_whose_bloom_filter_announces_more_waits(
    anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path
) -> None:
    """Two readings at once agree on nothing; one some time later finds the log, also when the block shows others of ours."""
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], reread=only(wait_seconds=0.4)) as node,
    ):
        lease = await approved_lease(agreement, node)
        hidden = LeftOut("LeaseCancelled", 2)
        proxy.after.append(hidden)
        await agreement.cancel(lease)
        await node.wait_until(status_is(node, lease, LeaseStatus.CANCELLED), what="the later reading")
        assert hidden.left_out == 2
        await node.wait_until(lambda: node.follower.source is not None and not node.follower.source.unexplained)
        await assert_equals_rebuild(node, tmp_path)


async def test_row_23_receipts_show_what_the_log_index_lacks(anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path) -> None:
    """An endpoint whose index of logs lacks one for ever has it in the block's receipts."""
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], reread=only(wait_seconds=0.4)) as node,
    ):
        lease = await approved_lease(agreement, node)
        proxy.after.append(LeftOut("LeaseCancelled"))
        await agreement.cancel(lease)
        await node.wait_until(status_is(node, lease, LeaseStatus.CANCELLED), what="the receipts")
        assert count_calls(proxy, "eth_getBlockReceipts") == 1
        await assert_equals_rebuild(node, tmp_path)


async def _waits(store: ChainStore) -> bool:
    """Whether a settled range waits to be read once more."""
    async with store.unit_of_work() as tx:
        return await tx.chain.find_backfill_range(NEVER * 1e6) is not None


async def test_row_24_a_settled_range_is_read_once_more(anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path) -> None:
    """A denial left out until after the settlement is found when the range is read again; then the range waits no more."""
    options = only(later_seconds=0.5, range_interval=0.05)
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], reread=options) as node,
    ):
        lease = await approved_lease(agreement, node)
        hidden = LeftOut("LeaseCancelled", 3)
        proxy.after.append(hidden)
        await agreement.cancel(lease)
        await node.wait_for_head()
        assert answer_of(node, lease) == "granted"
        await settle(node)
        await node.wait_until(status_is(node, lease, LeaseStatus.CANCELLED), what="the later reading")
        await assert_equals_rebuild(node, tmp_path)
        store = node.follower.chain_store
        assert store is not None
        async with asyncio.timeout(60):
            while await _waits(store):
                await asyncio.sleep(0.02)


async def test_row_24_the_operator_has_leases_read_again(anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path) -> None:
    """`pandacea leases reread`, with an id or without, says what changed, and changes nothing the second time."""
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], reread=only()) as node,
    ):
        leases = [await approved_lease(agreement, node) for _ in range(2)]
        proxy.after.append(LeftOut("LeaseCancelled"))
        for lease in leases:
            await agreement.cancel(lease)
        await settle(node)
        proxy.after.clear()
        control = LeaseControl(
            open_nothing, SqlProductStore(node.database), SystemClock(), node.lease_cache, node.follower.reread_leases
        )
        one = await control.reread_leases({"id": leases[0]})
        assert [row["lease_id"] for row in one["changed"]] == [leases[0]]
        assert render_answer("leases reread", one) == f"{leases[0]}  status approved -> cancelled"
        rest = await control.reread_leases({})
        assert [row["lease_id"] for row in rest["changed"]] == [leases[1]]
        again = await control.reread_leases({})
        assert render_answer("leases reread", again).startswith("Nothing changed")
        await assert_equals_rebuild(node, tmp_path)
    with pytest.raises(Refused, match="Only a running node"):
        await LeaseControl(open_nothing, SqlProductStore(node.database), SystemClock()).reread_leases({})


async def open_nothing() -> SqlChainStore:
    """Stand for the rows, which reading again does not ask for."""
    raise AssertionError("not asked for")


async def test_row_24_the_slow_scan_finds_what_every_reading_missed(
    anvil: Anvil, agreement: AnvilAgreement, tmp_path: Path
) -> None:
    """Hidden through every other reading, a creation and a denial are found by the scan; its progress outlives a restart."""
    place = tmp_path / "node.db"
    async with FaultProxy(anvil.url) as proxy:
        async with FollowingNode(agreement, place, urls=[proxy.url], reread=only()) as node:
            lease = await approved_lease(agreement, node)
            cancelled, created = LeftOut("LeaseCancelled"), LeftOut("LeaseCreated")
            proxy.after += [cancelled, created]
            await agreement.cancel(lease)
            unseen = await agreement.create()
            proxy.after.append(LeftOut("LeaseApproved"))
            await agreement.approve(unseen)
            await settle(node)
            proxy.after.clear()
            assert answer_of(node, lease) == "granted"
            assert node.known_lease(unseen) is None
        async with FollowingNode(agreement, place, urls=[proxy.url], upgraded=True, reread=only(scan_step_seconds=0.05)) as node:
            await node.wait_until(status_is(node, lease, LeaseStatus.CANCELLED), what="the denial")
            await node.wait_until(lambda: not is_contested(node, lease), what="the row instead of getLease")
            await node.wait_for_proof(unseen)
            await assert_equals_rebuild(node, tmp_path)
            assert node.follower.chain_store is not None
            async with node.follower.chain_store.unit_of_work() as tx:
                assert await tx.chain.find_scanned_block() >= agreement.block
