"""When the node may answer: how far behind it may be, on chains of every speed, and whether an approval can ever count."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest

from pandacea.app.control.leases import LeaseControl
from pandacea.chain.approvals.signed_transactions import UnprovableError, fetch_signed_transaction
from pandacea.chain.confidence import Confidence, ConfidenceKind
from pandacea.chain.contract_versions import find_deploy_block
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.profiles import PROFILES, UNKNOWN, FeeStyle, describe_missing_tags, profile_of
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.domain.access import Denied, may_run
from pandacea.domain.chain_view import NO_HASH, BlockRef, ChainView
from pandacea.domain.ids import Address, BlockNumber, Hash32, LeaseId, Timestamp
from tests.chain.anvil import Anvil
from tests.chain.node import FollowingNode
from tests.chain.simulated import CONTRACT, SimulatedChain, SimulatedEndpoint
from tests.fakes import EARNER, NOW, SPENDER, FakeClock, cached_lease
from tests.faults.proxy import FaultProxy, ProxyAnswer, answer_late

SAFE, FINALIZED = Confidence(ConfidenceKind.SAFE), Confidence(ConfidenceKind.FINALIZED)
TX = Hash32("0x" + "7a" * 32)


def at(number: int, seconds: float) -> BlockRef:
    """A block made so many seconds before now."""
    return BlockRef(BlockNumber(number), Hash32(f"0x{number:064x}"), NO_HASH, Timestamp(int(NOW - seconds)))


@pytest.mark.parametrize(
    ("behind", "seconds", "ready"),
    [(9, 3, True), (40, 10, True), (70, 17, False), (8, 96, True), (9, 108, False), (1, 250, True)],
    ids=["0.25 s blocks", "0.25 s, slow", "0.25 s, too slow", "12 s blocks", "12 s, too slow", "after a pause"],
)
def test_a_node_is_behind_when_it_lacks_both_blocks_and_seconds(behind: int, seconds: float, ready: bool) -> None:
    """Eight blocks are two seconds on one chain and a minute and a half on another; one block after a long pause is no lag."""
    cache = InMemoryLeaseCache(FakeClock(), SAFE)
    cache.not_ready_reason = None
    cache.chain_view = ChainView(at(1_000, seconds))
    cache.record_head(at(1_000 + behind, 0))
    assert cache.chain_status().is_ready is ready
    if not ready:
        assert f"reading block 1000 of {1_000 + behind}" in str(cache.chain_status().not_ready_reason)


async def test_quarter_second_blocks_over_a_slow_line_are_followed_without_a_gap(anvil: Anvil, tmp_path: Path) -> None:
    """Four blocks a second, 150 ms to the endpoint for every call: ready all the time."""
    agreement = await anvil.deploy_agreement()

    async def mine() -> None:
        while True:
            await anvil.mine_blocks(1)
            await asyncio.sleep(0.25)

    async with FaultProxy(anvil.url) as proxy, FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
        await node.wait_until(node.follower.caught_up.is_set)
        proxy.before.append(answer_late(0.15))
        mining = asyncio.create_task(mine())
        seen: list[str | None] = []
        start = await anvil.head_number()
        while await anvil.head_number() < start + 24:
            seen.append(node.lease_cache.chain_status().not_ready_reason)
            await asyncio.sleep(0.05)
        mining.cancel()
        with suppress(asyncio.CancelledError):
            await mining
    assert set(seen) == {None}


# -- a chain without `safe` and `finalized`


@pytest.mark.parametrize(
    ("confidence", "safe", "finalized", "counts"),
    [
        (SAFE, True, True, True),
        (SAFE, False, True, True),
        (SAFE, False, False, False),
        (FINALIZED, True, False, False),
        (FINALIZED, False, True, True),
        (Confidence(ConfidenceKind.CONFIRMATIONS, 12), False, False, True),
    ],
)
def test_what_to_set_is_said_where_no_approval_would_ever_count(
    confidence: Confidence, safe: bool, finalized: bool, counts: bool
) -> None:
    """`finalized` is deeper than `safe` and does for it."""
    said = describe_missing_tags(confidence, 137, has_safe=safe, has_finalized=finalized)
    if counts:
        assert said is None
    else:
        assert f"no `{confidence.kind}` block" in str(said)
        assert "Set blockchain.confidence: {confirmations: 256} and start the node again" in str(said)


async def test_without_tags_the_start_says_so_and_so_does_the_refusal(anvil: Anvil, tmp_path: Path) -> None:
    """Not "try again in a few minutes" for ever."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)

    async def no_tags(method: str, params: list[Any]) -> ProxyAnswer | None:
        if method == "eth_getBlockByNumber" and params[0] in {"safe", "finalized"}:
            return ProxyAnswer(error={"code": -39001, "message": f"{params[0]} block not found"})
        return None

    async with FaultProxy(anvil.url) as proxy:
        proxy.before.append(no_tags)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], confidence=SAFE) as node:
            await node.wait_for_proof(lease)
            status = node.lease_cache.chain_status()
            assert status.is_ready
            decision = may_run(
                node.known_lease(lease),
                status,
                caller=_spender(node, lease),
                earner=node.options.earner,
                product=None,
                assets=(),
                product_version=None,
                used=0,
                reserved=0,
                time_limit=1,
                clock=status.head_timestamp,
            )
    assert isinstance(decision, Denied)
    assert decision.code == "approval-unconfirmed"
    assert "blockchain.confidence: {confirmations: 1}" in decision.detail


def _spender(node: FollowingNode, lease: str) -> Address:
    known = node.known_lease(lease)
    assert known is not None
    return known.spender


def test_the_refusal_of_an_approval_that_will_count_says_nothing_of_it() -> None:
    """The sentence is for chains that have no such block, not for a block that is not there yet."""
    cache = InMemoryLeaseCache(FakeClock(), SAFE)
    cache.no_confidence_reason = "the chain shows no `safe` block"
    cache.chain_view = ChainView(at(10, 0), safe=BlockNumber(4))
    assert cache.chain_status().no_confidence_reason is None
    cache.chain_view = ChainView(at(10, 0))
    assert cache.chain_status().no_confidence_reason is not None
    assert cached_lease().earner == EARNER
    assert SPENDER != EARNER


# -- transactions and questions that an endpoint has no usual answer to


class OneAnswer(SimulatedEndpoint):
    """Answers one method in one way."""

    def __init__(self, method: str, answer: Any) -> None:
        super().__init__(SimulatedChain(finality=2), random.Random(1))
        self.method, self.answer = method, answer

    def _answer(self, method: str, params: list[Any]) -> Any:
        if method != self.method:
            return super()._answer(method, params)
        if isinstance(self.answer, FaultKind):
            raise RpcFault(self.answer, self.name, method, "method is not available on freetier")
        return self.answer


PLAIN = {"hash": TX, "nonce": "0x1", "gas": "0x5208", "value": "0x0", "input": "0x", "to": CONTRACT, "chainId": "0x1"}
SIGNED = {"r": "0x" + "11" * 32, "s": "0x" + "22" * 32, "v": "0x0"}


@pytest.mark.parametrize(
    "transaction",
    [
        {**PLAIN, "type": "0xff"},
        {**PLAIN, "type": "0x71", "r": None, "s": None, "v": None},
        {**PLAIN, "type": "0x2", "maxFeePerGas": "0x1", "maxPriorityFeePerGas": "0x1"},
        {**PLAIN, **SIGNED, "type": "0x7e"},
        {**PLAIN, **SIGNED, "type": "0x2", "accessList": {"not": "a list"}},
        {"hash": TX, "type": "0x6a", **SIGNED},
    ],
    ids=["priority", "no key signed", "unsigned 0x2", "deposit with r and s", "another shape", "no fields"],
)
async def test_a_transaction_that_no_key_signed_is_no_proof_and_no_fault(transaction: dict[str, Any]) -> None:
    """It is asked for once and found unproven; as a fault of the endpoint it would be asked for each second for ever."""
    with pytest.raises(UnprovableError):
        await fetch_signed_transaction(OneAnswer("eth_getTransactionByHash", transaction), TX)


@pytest.mark.parametrize("kind", [FaultKind.UNSUPPORTED, FaultKind.ERROR])
async def test_an_endpoint_that_keeps_or_sells_no_old_state_does_not_stop_the_start(kind: FaultKind) -> None:
    """The chain is read from block 0, slowly; the log says how to spare it."""
    endpoint = OneAnswer("eth_getCode", kind)
    endpoint.chain.mine([])
    assert await find_deploy_block(endpoint, CONTRACT) == 0


# -- profiles


def test_a_profile_is_known_for_each_chain_of_the_table() -> None:
    """By chain id; an unknown chain gets the careful middle."""
    names = {
        1: "Ethereum",
        11155111: "Sepolia",
        8453: "Base",
        10: "OP Mainnet",
        42161: "Arbitrum One",
        137: "Polygon PoS",
        100: "Gnosis",
    }
    assert {chain_id: profile_of(chain_id).name for chain_id in names} == names
    assert profile_of(424242) is UNKNOWN
    assert profile_of(137).native_coin == "POL"
    assert profile_of(42161).fee_style is FeeStyle.EIP1559_L1_GAS


@pytest.mark.parametrize("chain_id", sorted(PROFILES))
def test_a_profile_s_figures_fit_each_other(chain_id: int) -> None:
    """The confirmations to set instead of a tag last about as long as finality, or longer than any reorganisation seen."""
    profile = PROFILES[chain_id]
    if profile.block_seconds:
        assert profile.confirmations * profile.block_seconds >= min(profile.finality_seconds, 600)
    assert profile.log_range_blocks >= 1
    assert profile.native_coin


# -- what only a running node's memory holds


async def test_the_running_node_tells_which_leases_another_endpoint_denies() -> None:
    """`pandacea leases` reads the database, where nothing of it is: it asks for this and says what the node says."""
    cache = InMemoryLeaseCache(FakeClock(), SAFE)
    one, two = LeaseId("0x" + "01" * 32), LeaseId("0x" + "02" * 32)
    control = LeaseControl(cast("Any", None), cast("Any", None), FakeClock(), None, list_contested=cache.list_contested)
    assert await control.describe_contested({}) == {"contested": []}
    cache.set_contested("getLease", [two])
    cache.set_contested("http://other", [one, two])
    assert await control.describe_contested({}) == {"contested": [one, two]}
    cache.set_contested("http://other", [])
    assert await control.describe_contested({}) == {"contested": [two]}
