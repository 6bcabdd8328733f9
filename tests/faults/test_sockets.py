"""Rows 10, 11 and 14: a WebSocket that breaks, falls silent, or announces removed logs. It only wakes the follower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.chain.anvil import Anvil
from tests.chain.node import FollowingNode, assert_equals_rebuild
from tests.faults.proxy import FaultProxy


async def test_row_10_websocket_reset(anvil: Anvil, tmp_path: Path) -> None:
    """After a reset the node reconnects and has what happened meanwhile: it asks from its own last block on."""
    agreement = await anvil.deploy_agreement()
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], ws_url=proxy.ws_url, poll_interval=5.0) as node,
    ):
        await node.wait_for_head()
        wakes = node.follower.new_heads
        assert wakes is not None
        await node.wait_until(lambda: wakes.connection_count == 1, what="the first connection")
        await anvil.mine_blocks(1)
        await node.wait_until(lambda: wakes.is_live, what="a first message")
        for round_ in range(3):
            await proxy.cut_sockets()
            lost = await agreement.create(price=round_ + 1)
            await agreement.approve(lost)
            await node.wait_until(lambda: wakes.connection_count > round_ + 1, what="reconnected")
            await node.wait_for_head(3.0)
            assert node.known_lease(lost) is not None, "what happened in the gap was found"
        await assert_equals_rebuild(node, tmp_path)


async def test_row_10_a_burst_does_not_block(anvil: Anvil, tmp_path: Path) -> None:
    """A burst of more messages than any queue holds wakes the node once, and it is at the head at once."""
    agreement = await anvil.deploy_agreement()
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], ws_url=proxy.ws_url, poll_interval=5.0) as node,
    ):
        await node.wait_for_head()
        wakes = node.follower.new_heads
        assert wakes is not None
        await node.wait_until(lambda: wakes.connection_count == 1)
        proxy.extra = [json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": {"result": {}}})] * 20
        for _ in range(100):
            await anvil.mine_blocks(1)
        lease = await agreement.create()
        await agreement.approve(lease)
        await node.wait_for_head(4.0)
        assert node.known_lease(lease) is not None


async def test_row_11_websocket_open_but_silent(anvil: Anvil, tmp_path: Path) -> None:
    """Polling notices a socket that stays open and says nothing; from then on the node polls."""
    agreement = await anvil.deploy_agreement()
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], ws_url=proxy.ws_url, poll_interval=0.2) as node,
    ):
        await node.wait_for_head()
        wakes = node.follower.new_heads
        assert wakes is not None
        await node.wait_until(lambda: wakes.connection_count == 1)
        await anvil.mine_blocks(1)
        await node.wait_until(lambda: wakes.is_live)
        proxy.silent = True
        lease = await agreement.create()
        await agreement.approve(lease)
        await node.wait_until(lambda: node.known_lease(lease) is not None, seconds=3.0, what="found without the socket")
        await node.wait_until(lambda: wakes.silence_count >= 1, seconds=3.0, what="silence noticed")
        proxy.silent = False
        await node.wait_until(lambda: wakes.connection_count >= 2, what="reconnected")
        for _ in range(50):
            await anvil.mine_blocks(1)
            await node.wait_for_head()
            if wakes.is_live:
                break
        assert wakes.is_live, "it is heard again"


async def test_row_14_removed_logs(deep: Anvil, tmp_path: Path) -> None:
    """`removed: true` undoes nothing by itself, and its absence keeps nothing: only hashes do."""
    agreement = await deep.deploy_agreement()
    async with FaultProxy(deep.url) as proxy:

        def claim_removed(method: str, _params: list[Any], result: Any) -> Any:
            return result + [one | {"removed": True} for one in result] if method == "eth_getLogs" else result

        proxy.after.append(claim_removed)
        proxy.extra = [
            json.dumps({"jsonrpc": "2.0", "method": "eth_subscription", "params": {"result": {"removed": True, "topics": []}}})
        ]
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], ws_url=proxy.ws_url) as node:
            kept, lost = await agreement.create(), await agreement.create()
            await agreement.approve(kept)
            await agreement.approve(lost)
            await node.wait_for_head()
            assert node.known_lease(kept) is not None, "a log said to be removed is still in its block"
            await deep.reorg(1)
            await node.wait_for_head()
            assert node.known_lease(lost) is None, "a real reorg is undone without any message about it"
            assert node.known_lease(kept) is not None
            await assert_equals_rebuild(node, tmp_path)
