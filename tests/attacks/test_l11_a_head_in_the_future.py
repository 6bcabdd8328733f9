"""An endpoint shows a head nine days ahead, so that the node forgets every lease that still waits for its approval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chain.anvil import Anvil
from tests.chain.node import Node
from tests.faults.proxy import FaultProxy

NINE_DAYS = 9 * 86_400


@pytest.mark.parametrize("ahead", [NINE_DAYS, 0])
async def test_nothing_is_forgotten_by_a_time_that_is_not_believed(anvil: Anvil, tmp_path: Path, ahead: int) -> None:
    """The waiting lease is there after the node looked at its head again and again; by an honest head pruning does look."""
    agreement = await anvil.deploy()
    lease = await agreement.create()
    await anvil.mine(12)
    async with Node(agreement, tmp_path / "node.db") as node:
        await node.at_head()
        await node.until(lambda: node.book.view.base.number > 8, what="the lease is settled")
    await anvil.mine(1)

    def later(method: str, _params: list[Any], result: Any) -> Any:
        return result | {"timestamp": hex(int(result["timestamp"], 16) + ahead)} if method == "eth_getBlockByNumber" else result

    async with FaultProxy(anvil.url) as proxy:
        proxy.after.append(later)
        async with Node(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            await node.at_head()
            heads = heads_asked(proxy)
            await node.until(lambda: heads_asked(proxy) > heads + 4, what="looked at the head some more times")
            assert node.book.standing().trusted == (ahead == 0)
            assert lease in await node.rows()
            pruning = node.follower._pruning
            assert pruning is not None
            assert (pruning._done_at > 0) == (ahead == 0)


def heads_asked(proxy: FaultProxy) -> int:
    return sum(method == "eth_getBlockByNumber" and params[0] == "latest" for method, params in proxy.calls)
