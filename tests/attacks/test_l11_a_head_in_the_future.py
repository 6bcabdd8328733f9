"""An endpoint shows a head nine days ahead, so that the node forgets every lease that still waits for its approval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chain.anvil import Anvil
from tests.chain.node import FollowingNode
from tests.faults.proxy import FaultProxy

NINE_DAYS = 9 * 86_400


@pytest.mark.parametrize("ahead", [NINE_DAYS, 0])
async def test_nothing_is_forgotten_by_a_time_that_is_not_believed(anvil: Anvil, tmp_path: Path, ahead: int) -> None:
    """The waiting lease is there after the node looked at its head again and again; by an honest head pruning does look."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await anvil.mine_blocks(12)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await node.wait_for_head()
        await node.wait_until(lambda: node.view.base.number > 8, what="the lease is settled")
    await anvil.mine_blocks(1)

    def later(method: str, _params: list[Any], result: Any) -> Any:
        return result | {"timestamp": hex(int(result["timestamp"], 16) + ahead)} if method == "eth_getBlockByNumber" else result

    async with FaultProxy(anvil.url) as proxy:
        proxy.after.append(later)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            await node.wait_for_head()
            heads = heads_asked(proxy)
            await node.wait_until(lambda: heads_asked(proxy) > heads + 4, what="looked at the head some more times")
            assert node.lease_cache.chain_status().is_ready == (ahead == 0)
            assert lease in await node.read_rows()
            pruning = node.follower._pruner
            assert pruning is not None
            assert (pruning._done_at > 0) == (ahead == 0)


def heads_asked(proxy: FaultProxy) -> int:
    return sum(method == "eth_getBlockByNumber" and params[0] == "latest" for method, params in proxy.calls)
