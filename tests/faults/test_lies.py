"""A lying endpoint may deny, and gets nothing granted. Row 19: metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pandacea.chain.contract_versions import GET_LEASE_SELECTOR
from pandacea.domain.access import Denied, Granted, may_continue, may_read
from pandacea.domain.approval_proof import ProofStatus
from tests.chain.anvil import EARNER, OPERATOR, OWNER, PRODUCT, SPENDER, STRANGER, Anvil, encode_call
from tests.chain.emitter import Emitter, created, lease_number, simple, terms
from tests.chain.node import FollowingNode, assert_equals_rebuild
from tests.faults.proxy import FaultProxy, ProxyAnswer


async def test_a_consistent_fake_chain_gets_nothing(anvil: Anvil, tmp_path: Path) -> None:
    """One endpoint invents a whole consistent chain with an approved lease for the liar: denied, because a signature cannot be invented."""
    liar = await Emitter.deploy(anvil)
    lease = lease_number(1)
    await liar.emit(created(lease, spender=STRANGER.address), terms(lease), simple("LeaseApproved", lease))
    await anvil.mine_blocks(4)
    async with FollowingNode(liar.agreement, tmp_path / "node.db") as node:
        await node.wait_for_head()
        await node.wait_until(lambda: (known := node.known_lease(lease)) is not None and known.proof_status is ProofStatus.UNPROVEN)
        for answer in (
            node.decide_run(lease, STRANGER.address),
            may_read(node.known_lease(lease), node.lease_cache.chain_status(), caller=STRANGER.address.lower()),
            may_continue(node.known_lease(lease), node.lease_cache.chain_status()),
        ):
            assert isinstance(answer, Denied)
            assert answer.code == "approval-unproven"


async def test_a_real_approval_does_not_open_another_persons_lease(anvil: Anvil, tmp_path: Path) -> None:
    """The Earner's genuine approval of one lease, shown with another spender in its creation, proves nothing: the id binds the terms."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    async with FaultProxy(anvil.url) as proxy:

        def rewrite(method: str, _params: list[Any], result: Any) -> Any:
            if method != "eth_getLogs":
                return result
            stranger = "0x" + STRANGER.address[2:].lower().rjust(64, "0")
            return [
                one | {"topics": [*one["topics"][:2], stranger, one["topics"][3]]} if len(one["topics"]) == 4 else one
                for one in result
            ]

        proxy.after.append(rewrite)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            await node.wait_until(
                lambda: (known := node.known_lease(lease)) is not None and known.proof_status is ProofStatus.UNPROVEN
            )
            answer = node.decide_run(lease, STRANGER.address)
            assert isinstance(answer, Denied)
            assert answer.code == "approval-unproven"
            assert isinstance(node.decide_run(lease, SPENDER.address), Denied)


LIES = {
    "signature of somebody else": {"s": "0x" + "22" * 31 + "11"},
    "other calldata": {"input": "0x00"},
    "other target": {"to": "0x" + "cd" * 20},
    "other chain": {"chainId": "0x1"},
    "no signature": {"r": "0x0", "s": "0x0"},
    "a type nobody knows": {"type": "0x63"},
    "numbers that are none": {"nonce": "zero"},
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_transaction_changed_in_any_field_proves_nothing(anvil: Anvil, tmp_path: Path, lie: str) -> None:
    """The approving transaction is hashed again and its signer recovered: a changed field gives another hash or signer."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    async with FaultProxy(anvil.url) as proxy:
        proxy.after.append(lambda method, _, result: result | LIES[lie] if method == "eth_getTransactionByHash" else result)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            await node.wait_until(
                lambda: (known := node.known_lease(lease)) is not None and known.proof_status is ProofStatus.UNPROVEN
            )
            assert isinstance(node.decide_run(lease, SPENDER.address), Denied)


@pytest.mark.parametrize("kind", [0, 1, 2])
async def test_an_approval_of_any_transaction_type_is_proved(anvil: Anvil, tmp_path: Path, kind: int) -> None:
    """Legacy (EIP-155), EIP-2930 and EIP-1559 approvals by the Earner are proved by their signature."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease, kind=kind)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await node.wait_for_proof(lease)
        known = node.known_lease(lease)
        assert known is not None
        assert known.proof_status is ProofStatus.SIGNED
        assert isinstance(node.decide_run(lease, SPENDER.address), Granted)
        assert isinstance(node.decide_run(lease, STRANGER.address), Denied)


async def test_an_operator_approves_when_the_earner_made_it_one(anvil: Anvil, tmp_path: Path) -> None:
    """An operator's approval counts when it is this node's own key, or when the Earner's signature appointed it."""
    agreement = await anvil.deploy_agreement()
    await anvil.send_transaction(EARNER, agreement.address, encode_call("setOperator(address)", OPERATOR.address))
    lease = await agreement.create()
    await agreement.approve(lease, by=OPERATOR)
    async with FollowingNode(agreement, tmp_path / "appointed.db") as node:
        await node.wait_for_proof(lease)
    async with FollowingNode(agreement, tmp_path / "own.db", approvers=frozenset({OPERATOR.address.lower()})) as node:
        await node.wait_for_proof(lease)


async def test_an_approval_that_a_stranger_brought_is_proved_by_the_signature_in_it(anvil: Anvil, tmp_path: Path) -> None:
    """The Earner signed it, or the operator that the Earner made: who sent the transaction proves nothing and disproves nothing."""
    agreement = await anvil.deploy_agreement()
    await anvil.send_transaction(EARNER, agreement.address, encode_call("setOperator(address)", OPERATOR.address))
    leases = [await agreement.create() for _ in range(2)]
    for lease, signer in zip(leases, (EARNER, OPERATOR), strict=True):
        await agreement.approve_by_signature(lease, signer=signer, by=STRANGER)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        for lease in leases:
            await node.wait_for_proof(lease)
            known = node.known_lease(lease)
            assert known is not None
            assert known.proof_status is ProofStatus.SIGNED
            assert isinstance(node.decide_run(lease, SPENDER.address), Granted)


async def test_an_id_that_names_another_arbiter_than_the_lease_has_is_not_proved(anvil: Anvil, tmp_path: Path) -> None:
    """The id is the hash of the terms and the arbiter: an endpoint that shows another arbiter opens nothing."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)

    def other_arbiter(method: str, params: list[Any], answer: Any) -> Any:
        if method == "eth_call" and params[0]["data"].startswith(GET_LEASE_SELECTOR):
            start = 2 + 64 * 17
            return answer[:start] + "00" * 12 + STRANGER.address[2:].lower() + answer[start + 64 :]
        return answer

    async with FaultProxy(anvil.url) as proxy:
        proxy.after.append(other_arbiter)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            await node.wait_until(
                lambda: (known := node.known_lease(lease)) is not None and known.proof_status is ProofStatus.UNPROVEN
            )
            assert isinstance(node.decide_run(lease, SPENDER.address), Denied)


async def test_proofs_survive_a_restart(anvil: Anvil, tmp_path: Path) -> None:
    """A proof is stored: after a restart the approving transaction is not asked for again."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    async with FollowingNode(agreement, tmp_path / "node.db") as node:
        await node.wait_for_proof(lease)
    async with FaultProxy(anvil.url) as proxy, FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
        await node.wait_for_head()
        known = node.known_lease(lease)
        assert known is not None
        assert known.proof_status is ProofStatus.SIGNED
        assert not any(method == "eth_getTransactionByHash" for method, _ in proxy.calls)


async def test_any_endpoint_may_deny(anvil: Anvil, tmp_path: Path) -> None:
    """A cancellation that the followed endpoint hides and another shows denies; when both show it, the lease is cancelled."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    cancelled = "0x" + "00" * 32
    async with FaultProxy(anvil.url) as hiding:

        def hide(method: str, _params: list[Any], result: Any) -> Any:
            return [one for one in result if one["topics"][0] != cancelled] if method == "eth_getLogs" else result

        hiding.after.append(hide)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[hiding.url, anvil.url], settle_every=1000) as node:
            await node.wait_for_proof(lease)
            from tests.chain.emitter import TOPIC

            cancelled = TOPIC["LeaseCancelled"]
            # The second look goes to the honest endpoint when a block looks empty; a liar would hide the bloom's hint too.
            hiding.after.append(_without_bloom)
            await agreement.cancel(lease)
            await node.wait_for_head()
            assert not _cancelled(node, lease), "the endpoint being followed hides it"
            await node.wait_until(
                lambda: _code(may_continue(node.known_lease(lease), node.lease_cache.chain_status())) == "lease-doubted"
            )
            assert _code(node.decide_run(lease, SPENDER.address)) == "lease-doubted"
            hiding.refuse = True
            await anvil.mine_blocks(1)
            await node.wait_until(lambda: node.follower.endpoints.current.url == anvil.url, what="failover")


def _without_bloom(method: str, _params: list[Any], result: Any) -> Any:
    return result | {"logsBloom": "0x" + "00" * 256} if method == "eth_getBlockByNumber" and result else result


def _cancelled(node: FollowingNode, lease: str) -> bool:
    known = node.known_lease(lease)
    return known is not None and known.status.value == "cancelled"


def _code(answer: Any) -> str:
    return answer.code if isinstance(answer, Denied) else ""


async def test_logs_that_were_not_asked_for_are_refused(anvil: Anvil, tmp_path: Path) -> None:
    """A log of another contract, topic, block or range discards the whole answer."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    lies = iter(
        [
            {"address": "0x" + "cd" * 20},
            {"topics": ["0x" + "cd" * 32]},
            {"blockHash": "0x" + "cd" * 32},
            {"blockNumber": "0xffff"},
            {"blockNumber": "many"},
            {"logIndex": "0xffffffffffff"},
            {"topics": []},
        ]
    )
    async with FaultProxy(anvil.url) as proxy:

        def lie(method: str, _params: list[Any], result: Any) -> Any:
            if method != "eth_getLogs" or not result:
                return result
            change = next(lies, {})
            return [one | change for one in result]

        proxy.after.append(lie)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            await node.wait_for_head()
            await assert_equals_rebuild(node, tmp_path)
            counted = node.follower.collect_metrics().rpc_errors[(node.follower.endpoints.members[0].name, "inconsistent")]
            assert counted == 7


async def test_row_19_metrics(deep: Anvil, tmp_path: Path) -> None:
    """Head, safe, finalized, processed, lag in blocks and seconds, reorgs with depth, and RPC errors by class and endpoint."""
    agreement = await deep.deploy_agreement()
    await deep.mine_blocks(100)
    async with FaultProxy(deep.url) as proxy, FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
        await node.wait_for_head()
        await deep.mine_blocks(1)
        await node.wait_for_head()
        await deep.send_transaction(OWNER, SPENDER.address, "0x", value=1)
        await node.wait_for_head()
        await deep.reorg(1)
        await node.wait_for_head()
        proxy.before.append(_nothing_but_errors)
        await node.wait_until(lambda: bool(node.follower.collect_metrics().rpc_errors))
        shown = node.follower.collect_metrics()
        head = await deep.head_number()
        assert (shown.head, shown.processed, shown.lag_blocks) == (head, head, 0)
        assert shown.safe == head - 40
        assert shown.finalized == head - 80
        assert shown.settled <= shown.finalized
        assert shown.held_blocks == head - shown.settled
        assert 0 <= shown.lag_seconds < 60
        assert (shown.reorgs, shown.deepest_reorg) == (1, 1)
        assert {kind for _, kind in shown.rpc_errors} == {"http"}
        assert all(name.startswith("http://127.0.0.1:") and not name.endswith("/") for name, _ in shown.rpc_errors), "redacted"


async def _nothing_but_errors(_method: str, _params: list[Any]) -> ProxyAnswer:
    return ProxyAnswer(status=503, body=b"")


async def test_v0_is_served_with_a_second_endpoint(anvil: Anvil, tmp_path: Path) -> None:
    """A v0 contract is detected; the product comes from getLease; two endpoints that agree replace ids that bind no terms."""
    from tests.chain.anvil import V0

    agreement = await anvil.deploy_agreement(V0)
    lease = await agreement.create_v0()
    await agreement.approve(lease)
    async with FaultProxy(anvil.url) as second, FollowingNode(agreement, tmp_path / "two.db", urls=[anvil.url, second.url]) as node:
        await node.wait_until(
            lambda: (known := node.known_lease(lease)) is not None and known.proof_status is ProofStatus.AGREED, what="agreed"
        )
        known = node.known_lease(lease)
        assert known is not None
        assert (known.data_product_id, known.expires_at, known.max_computations) == (PRODUCT, None, 1)
        assert isinstance(node.decide_run(lease, SPENDER.address), Granted)
        await agreement.execute(lease, by=STRANGER)
        await node.wait_for_head()
        assert isinstance(node.decide_run(lease, SPENDER.address), Granted), "a stranger's execution is not obeyed"
        assert node.follower.source is not None
        completer = node.follower.source.v0_completer
        assert completer is not None
        assert completer.stranger_executions == 1, "but recorded and alarmed"
    async with FollowingNode(agreement, tmp_path / "one.db") as node:
        await node.wait_until(
            lambda: (known := node.known_lease(lease)) is not None and known.proof_status is ProofStatus.UNPROVEN, what="unproven"
        )
        assert _code(node.decide_run(lease, SPENDER.address)) == "approval-unproven"


async def test_v0_the_earners_own_execution_ends_it(anvil: Anvil, tmp_path: Path) -> None:
    """A v0 lease ends for new computations once the Earner's own transaction executed it."""
    from tests.chain.anvil import V0

    agreement = await anvil.deploy_agreement(V0)
    lease = await agreement.create_v0()
    await agreement.approve(lease)
    await agreement.execute(lease)
    async with (
        FaultProxy(anvil.url) as second,
        FollowingNode(agreement, tmp_path / "node.db", urls=[anvil.url, second.url]) as node,
    ):
        await node.wait_for_proof(lease)
        await node.wait_for_head()
        assert _code(node.decide_run(lease, SPENDER.address)) == "lease-ended"


async def test_v0_disputes_that_emit_nothing_are_found_by_asking(anvil: Anvil, tmp_path: Path) -> None:
    """The first contracts raise disputes without an event: getLease is polled, and a lease it shows as disputed is denied."""
    from tests.chain.anvil import V0

    agreement = await anvil.deploy_agreement(V0)
    lease = await agreement.create_v0()
    await agreement.approve(lease)
    disputed = False

    def dispute(method: str, params: list[Any], result: Any) -> Any:
        asked = method == "eth_call" and params[0]["data"].startswith(GET_LEASE_SELECTOR)
        return result[: 2 + 64 * 7] + f"{1:064x}" + result[2 + 64 * 8 :] if asked and disputed else result

    async with (
        FaultProxy(anvil.url) as first,
        FaultProxy(anvil.url) as second,
        FollowingNode(agreement, tmp_path / "node.db", urls=[first.url, second.url]) as node,
    ):
        first.after.append(dispute)
        second.after.append(dispute)
        await node.wait_for_proof(lease)
        assert isinstance(node.decide_run(lease, SPENDER.address), Granted)
        disputed = True
        await node.wait_until(lambda: _code(node.decide_run(lease, SPENDER.address)) == "lease-doubted", what="the dispute")
        disputed = False
        await node.wait_until(lambda: isinstance(node.decide_run(lease, SPENDER.address), Granted), what="its end")
