"""One answer of an endpoint that is behind, or lies, ends a commitment for ever: the result is delivered and not paid."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandacea_sdk.protocol.contract import lease_agreement
from tests.chain.anvil import SPENDER, AnvilAgreement
from tests.faults.proxy import FaultProxy, ProxyAnswer, answer_first
from tests.faults.settling import SettlingNode, settling_node, word

_CREATED = 1


async def _is_paid_for(earner: SettlingNode, lease: str) -> None:
    """The contract holds the result, so that the price cannot be taken back a day after the expiry."""
    assert await earner.waiting() == 1, "no answer of an endpoint ends it"
    await earner.node.wait_until(lambda: not earner.node.endpoints.seconds_until_ready())
    await earner.settle_when_due()
    await earner.finish()
    assert await earner.committed(lease, "a")
    assert (await earner.waiting(), await earner.nonce()) == (0, 1)
    await earner.chain.call_method("evm_increaseTime", 2 * 86_400 + 60)
    await earner.chain.mine_blocks(1)
    with pytest.raises(AssertionError, match="reverted"):
        await earner.agreement.cancel(lease, by=SPENDER)


@pytest.mark.parametrize(
    ("error", "more"), [("WrongStatus", f"{_CREATED:064x}"), ("TooLate", f"{1:064x}"), ("AllCommitted", f"{5:064x}")], ids=str
)
async def test_a_refusal_of_one_endpoint(error: str, more: str, agreement: AnvilAgreement, tmp_path: Path) -> None:
    """As it was played: the first estimate is that of a node behind the approval, or one that means a final end; then all are honest."""
    async with FaultProxy(agreement.chain.url) as proxy, settling_node(agreement, tmp_path, urls=[proxy.url]) as earner:
        lease = await earner.lease(days=1)
        await earner.release(lease, "a")
        data = lease_agreement().error_selector(error) + lease[2:] + more
        refusal = ProxyAnswer(error={"code": 3, "message": "execution reverted", "data": data})
        proxy.before.append(answer_first(1, refusal, ["eth_estimateGas"]))
        await earner.settle()
        assert error in str(await earner.notes())
        await _is_paid_for(earner, lease)


async def test_an_endpoint_that_says_it_is_committed(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """A liar shows a hash under `committedResult`, in each call: the node does not ask it."""

    def lie(method: str, _params: list[object], result: object) -> object:
        return word("result of a") if method == "eth_call" else result

    async with FaultProxy(agreement.chain.url) as proxy, settling_node(agreement, tmp_path, urls=[proxy.url]) as earner:
        lease = await earner.lease(days=1)
        await earner.release(lease, "a")
        proxy.after.append(lie)
        await earner.settle()
        proxy.after.clear()
        await _is_paid_for(earner, lease)
