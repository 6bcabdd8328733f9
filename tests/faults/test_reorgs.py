"""Rows 1 to 4 of the fault table: blocks that are taken back."""

from __future__ import annotations

import random
from pathlib import Path

from pandacea.chain.finality import REBUILD_REMEDY
from pandacea.domain.access import Denied, Granted, Unknown, may_continue, may_read
from pandacea.domain.ids import Address, LeaseId
from pandacea.store.chain_store import count_chain_rows, delete_deployment
from pandacea.store.database_engine import DatabaseEngine
from tests.chain.anvil import EARNER, SPENDER, STRANGER, Anvil, AnvilAgreement, encode_call
from tests.chain.node import FollowingNode, assert_equals_rebuild
from tests.faults.proxy import FaultProxy

COMPUTATION = "0x" + "22" * 32


async def test_row_01_reorg_of_k_blocks(deep: Anvil, tmp_path: Path) -> None:
    """A reorg of k = 1..30 blocks is undone to the common ancestor: rows and cache equal a rebuild from zero, each time."""
    agreement = await deep.deploy_agreement()
    rng = random.Random(1)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        leases: list[str] = []
        for depth in range(1, 31):
            while await deep.head_number() < depth + agreement.block + 2:
                leases.append(await agreement.create())
            for lease in rng.sample(leases, min(3, len(leases))):
                if node.known_lease(lease) is None:
                    await agreement.approve(lease)  # mined when it returns: the node is at the head that is taken back
            await node.wait_for_head()
            await deep.reorg(depth, [(await _something(deep, depth), 0)])
            leases = [lease for lease in leases if await _exists(agreement, lease)]
            leases.append(await agreement.create())
            await agreement.approve(leases[-1])
            await node.wait_for_head()
            if depth % 5 == 0 or depth < 4:
                rows = await assert_equals_rebuild(node, tmp_path)
                assert leases[-1] in rows
        assert node.follower.source is not None
        assert node.follower.source.counters.deepest_reorg == 30
        assert node.follower.source.counters.reorgs >= 30


async def test_row_01_an_approval_that_moves_to_another_block_never_vanishes(deep: Anvil, tmp_path: Path) -> None:
    """Undoing and appending the other branch is one update: a lease approved in both branches is never seen without its approval."""
    agreement = await deep.deploy_agreement()
    lease = await agreement.create()
    raw = await deep.sign_transaction(EARNER, agreement.address, encode_call("approveLease(bytes32)", lease))
    await deep.wait_for_receipt(await deep.call_method("eth_sendRawTransaction", raw))
    await deep.mine_blocks(3)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await node.wait_for_proof(lease)
        answers = []
        node.lease_cache.subscribe(
            lambda _: answers.append(may_continue(node.lease_cache.peek(LeaseId(lease)), node.lease_cache.chain_status()))
        )
        await deep.reorg(4, [(raw, 2)])
        await node.wait_for_head()
        moved = node.known_lease(lease)
        assert moved is not None
        assert moved.approved_block == agreement.block + 4, "the approval is in another block now"
        assert answers
        assert all(isinstance(answer, Granted) for answer in answers)


async def test_row_01_a_reorg_that_removes_a_denial_restores(deep: Anvil, tmp_path: Path) -> None:
    """A cancellation denies from the first block that shows it, and a reorg that removes it restores."""
    agreement = await deep.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await node.wait_for_proof(lease)
        await agreement.cancel(lease)
        await node.wait_for_head()
        denied = may_read(node.known_lease(lease), node.lease_cache.chain_status(), caller=SPENDER.address.lower())
        assert isinstance(denied, Denied)
        assert denied.code == "lease-cancelled"
        await deep.reorg(1)
        await node.wait_for_head()
        assert isinstance(
            may_read(node.known_lease(lease), node.lease_cache.chain_status(), caller=SPENDER.address.lower()), Granted
        )
        await assert_equals_rebuild(node, tmp_path)


async def test_row_02_reorg_while_the_node_is_down(deep: Anvil, tmp_path: Path) -> None:
    """The first update after a start compares the stored tip's hash: a reorg during the downtime is undone."""
    agreement = await deep.deploy_agreement()
    kept, lost = await agreement.create(), await agreement.create()
    await agreement.approve(kept)
    await deep.mine_blocks(3)
    await agreement.approve(lost)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await node.wait_for_head()
        assert node.known_lease(lost) is not None
    await deep.reorg(2)
    await deep.mine_blocks(4)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await assert_equals_rebuild(node, tmp_path)
        assert node.known_lease(lost) is None
        assert node.known_lease(kept) is not None
        assert node.follower.source is not None
        assert node.follower.source.counters.reorgs == 1


async def test_row_03_the_head_goes_down_and_nothing_is_announced(deep: Anvil, tmp_path: Path) -> None:
    """evm_revert announces nothing; the first block with another hash at a height already seen undoes what was above it."""
    agreement = await deep.deploy_agreement()
    await deep.mine_blocks(2)
    snapshot = await deep.call_method("evm_snapshot")
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        lease = await agreement.create()
        await agreement.approve(lease)
        await node.wait_for_head()
        assert node.known_lease(lease) is not None
        await deep.call_method("evm_revert", snapshot)
        other = await agreement.create(price=7)
        await node.wait_for_head()
        assert node.known_lease(lease) is None
        rows = await assert_equals_rebuild(node, tmp_path)
        assert set(rows) == {other}


async def test_row_04_reorg_below_finalized(anvil: Anvil, tmp_path: Path) -> None:
    """Below the finalized block nothing is undone: the node stops answering, names the endpoint, and recovers when both agree again."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    await anvil.mine_blocks(10)
    async with (
        Anvil("--fork-url", anvil.url, "--fork-block-number", "4") as fork,
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node,
    ):
        await node.wait_for_proof(lease)
        await node.wait_for_head()
        before = await node.rows_and_cache()
        assert node.lease_cache.chain_status().is_ready
        await fork.mine_blocks(12)
        proxy.upstreams = [fork.url]
        await node.wait_until(lambda: not node.lease_cache.chain_status().is_ready, what="distrust")
        answer = may_continue(node.known_lease(lease), node.lease_cache.chain_status())
        assert isinstance(answer, Unknown), "never a guess, and never a cancellation"
        assert proxy.url.rstrip("/") in answer.detail
        assert node.follower.collect_metrics().contradictions == 1
        assert await node.rows_and_cache() == before, "nothing of the other chain was taken over"
        proxy.upstreams = [anvil.url]
        await anvil.mine_blocks(1)
        await node.wait_until(lambda: node.lease_cache.chain_status().is_ready, what="healed")
        assert isinstance(may_continue(node.known_lease(lease), node.lease_cache.chain_status()), Granted)


async def test_row_04_the_operator_may_rebuild_from_a_chain_that_was_reset(anvil: Anvil, tmp_path: Path) -> None:
    """After a chain was reset on purpose, what `pandacea chain rebuild` does lets the next start read it from the deployment."""
    agreement = await anvil.deploy_agreement()
    await anvil.mine_blocks(10)
    lease = await agreement.create()
    await agreement.approve(lease)
    await anvil.mine_blocks(4)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await node.wait_for_head()
    await anvil.reorg(8)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await node.wait_until(lambda: bool(node.lease_cache.contradictions), what="distrust")
        assert REBUILD_REMEDY in str(node.lease_cache.chain_status().not_ready_reason)
        assert node.known_lease(lease) is not None
        contract = Address(agreement.address)
        assert await count_chain_rows(node.database, anvil.chain_id, contract) is not None
    database = await DatabaseEngine.open(f"sqlite+aiosqlite:///{tmp_path / 'node.db'}")
    await delete_deployment(database, anvil.chain_id, contract)
    assert await count_chain_rows(database, anvil.chain_id, contract) is None
    await database.close()
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await assert_equals_rebuild(node, tmp_path)
        assert node.known_lease(lease) is None
        assert node.lease_cache.chain_status().is_ready


async def test_row_04_a_chain_that_begins_again_is_not_taken_for_a_lagging_endpoint(anvil: Anvil, tmp_path: Path) -> None:
    """Its head is lower than what was final, and younger: an endpoint that lags is older. Served all the same it would be old news."""
    agreement = await anvil.deploy_agreement()
    await anvil.mine_blocks(20)
    async with (
        Anvil() as other,
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node,
    ):
        await node.wait_for_head()
        await node.wait_until(lambda: node.view.base.number > 8, what="settled")
        assert node.lease_cache.chain_status().is_ready
        begun_again = await other.deploy_agreement()
        assert begun_again.address == agreement.address
        await other.call_method("evm_setNextBlockTimestamp", node.view.tip.timestamp + 60)
        await other.mine_blocks(1)
        proxy.upstreams = [other.url]
        await node.wait_until(lambda: not node.lease_cache.chain_status().is_ready, what="distrust")
        reason = str(node.lease_cache.chain_status().not_ready_reason)
        assert "as the newest, made after block" in reason
        assert REBUILD_REMEDY in reason


async def _something(chain: Anvil, depth: int) -> str:
    """A transaction for the first of the new blocks: empty ones of the same age would have the hashes of those they replace."""
    ancestor = await chain.head_number() - depth
    nonce = int(await chain.call_method("eth_getTransactionCount", STRANGER.address, hex(ancestor)), 16)
    return await chain.sign_transaction(STRANGER, SPENDER.address, "0x", value=depth, nonce=nonce)


async def _exists(agreement: AnvilAgreement, lease: str) -> bool:
    said = await agreement.chain.call_method(
        "eth_call", {"to": agreement.address, "data": encode_call("leaseExists(bytes32)", lease)}, "latest"
    )
    return int(said, 16) == 1
