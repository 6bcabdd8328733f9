"""A thief holds an operator's key that the Earner took back, and an endpoint shows the thief's approval as one that counts.

The transaction is real and signed by the thief; the contract undid it, and the endpoint adds the log that was never written.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from pandacea.chain.events import event_topic
from pandacea.domain.approval_proof import ProofStatus
from tests.chain.anvil import EARNER, OPERATOR, OWNER, Anvil, AnvilAgreement, encode_call
from tests.chain.node import FollowingNode
from tests.faults.proxy import FaultProxy

APPROVED = event_topic("LeaseApproved(bytes32)")


async def appoint(agreement: AnvilAgreement, operator: str) -> None:
    await agreement.chain.send_transaction(EARNER, agreement.address, encode_call("setOperator(address)", operator))


async def undone_approval(agreement: AnvilAgreement, lease: str) -> dict[str, Any]:
    """The receipt of the thief's approval, which the contract itself does not take."""
    raw = await agreement.chain.sign_transaction(OPERATOR, agreement.address, encode_call("approveLease(bytes32)", lease))
    sent = await agreement.chain.call_method("eth_sendRawTransaction", raw)
    while (mined := await agreement.chain.call_method("eth_getTransactionReceipt", sent)) is None:
        await asyncio.sleep(0.01)
    assert mined["status"] == "0x0"
    return dict(mined)


def lie(proxy: FaultProxy, agreement: AnvilAgreement, lease: str, mined: dict[str, Any]) -> None:
    """Show the log in the block that holds the undone transaction, and headers without blooms."""
    forged = {
        "address": agreement.address,
        "topics": [APPROVED, lease],
        "data": "0x",
        "blockNumber": mined["blockNumber"],
        "blockHash": mined["blockHash"],
        "transactionHash": mined["transactionHash"],
        "logIndex": "0x0",
    }

    def add(method: str, params: list[Any], result: Any) -> Any:
        if method == "eth_getBlockByNumber":
            return result | {"logsBloom": "0x0"}
        if method != "eth_getLogs" or APPROVED not in params[0]["topics"][0]:
            return result
        asked = params[0]
        if "blockHash" in asked:
            here = asked["blockHash"] == mined["blockHash"]
        else:
            here = int(asked["fromBlock"], 16) <= int(mined["blockNumber"], 16) <= int(asked["toBlock"], 16)
        return [*result, forged] if here else result

    proxy.after.append(add)


async def test_a_key_that_was_taken_back_approves_nothing(anvil: Anvil, tmp_path: Path) -> None:
    """Appointed by the Earner once, replaced before the approval: unproven."""
    agreement = await anvil.deploy_agreement()
    await appoint(agreement, OPERATOR.address)
    await appoint(agreement, OWNER.address)
    lease = await agreement.create()
    mined = await undone_approval(agreement, lease)
    async with FaultProxy(anvil.url) as proxy:
        lie(proxy, agreement, lease, mined)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            await node.wait_until(
                lambda: (known := node.known_lease(lease)) is not None and known.proof_status is not ProofStatus.PENDING,
                what="looked at",
            )
            known = node.known_lease(lease)
            assert known is not None
            assert known.proof_status is ProofStatus.UNPROVEN


async def test_what_an_operator_approved_stands_when_it_is_replaced_later(anvil: Anvil, tmp_path: Path) -> None:
    """The control: operator at the approval, replaced in a block after it."""
    agreement = await anvil.deploy_agreement()
    await appoint(agreement, OPERATOR.address)
    lease = await agreement.create()
    await agreement.approve(lease, by=OPERATOR)
    await appoint(agreement, OWNER.address)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await node.wait_until(
            lambda: (known := node.known_lease(lease)) is not None and known.proof_status is ProofStatus.SIGNED, what="signed"
        )


async def test_the_other_endpoint_is_asked_whether_it_was_replaced(anvil: Anvil, tmp_path: Path) -> None:
    """The liar hides the replacement, too; an endpoint of another operator shows it, and any of them may deny."""
    agreement = await anvil.deploy_agreement()
    await appoint(agreement, OPERATOR.address)
    await appoint(agreement, OWNER.address)
    changed = event_topic("OperatorChanged(address,address)")
    lease = await agreement.create()
    mined = await undone_approval(agreement, lease)
    async with FaultProxy(anvil.url) as liar, FaultProxy(anvil.url) as honest:
        lie(liar, agreement, lease, mined)
        liar.after.append(
            lambda method, params, result: result[:1] if method == "eth_getLogs" and changed in params[0]["topics"][0] else result
        )
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[liar.url, honest.url]) as node:
            await node.wait_until(lambda: all(one.verified for one in node.endpoints.members))
            await node.wait_until(
                lambda: (known := node.known_lease(lease)) is not None and known.proof_status is not ProofStatus.PENDING,
                what="looked at",
            )
            known = node.known_lease(lease)
            assert known is not None
            assert known.proof_status is ProofStatus.UNPROVEN
