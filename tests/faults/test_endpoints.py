"""Rows 5 to 9, 16 and 18: endpoints that lag, drop, refuse, fail, or serve another chain."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from pandacea.chain.endpoints import LAST_RESORT_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS, EndpointPool
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.domain.access import Granted, Unknown, may_continue
from pandacea.domain.ids import Address, Hash32
from pandacea.errors import Broken
from tests.chain.anvil import Anvil, AnvilAgreement
from tests.chain.emitter import Emitter, created, lease_number, simple, terms
from tests.chain.node import FollowingNode, assert_equals_rebuild
from tests.faults.proxy import FaultProxy, ProxyAnswer, answer_first, answer_late, answer_sometimes


def test_an_outage_of_all_endpoints_does_not_outlast_itself() -> None:
    """However long all were unreachable, one is asked again within seconds; one that asked to slow down backs off for longer."""
    now = 0.0
    pair = [Endpoint("http://a.test"), Endpoint("http://b.test")]
    endpoints = EndpointPool(
        pair, chain_id=1, contract=Address("0x" + "1" * 40), code_hash=Hash32("0x" + "2" * 64), monotonic=lambda: now
    )
    for _ in range(12):
        for one in pair:
            endpoints.record_failure(one, RpcFault(FaultKind.NETWORK, one.name, "eth_blockNumber", "connection refused"))
    assert endpoints.seconds_until_ready() <= LAST_RESORT_BACKOFF_SECONDS
    for one in pair:
        endpoints.record_failure(one, RpcFault(FaultKind.RATE_LIMIT, one.name, "eth_blockNumber", "slow down"))
    assert endpoints.seconds_until_ready() >= MAX_BACKOFF_SECONDS / 2


async def test_row_05_lagging_rpc_behind_a_balancer(anvil: Anvil, tmp_path: Path) -> None:
    """With every other answer from a node that lags, finality never goes back, and no reorg is seen where there is none."""
    agreement = await anvil.deploy_agreement()
    await anvil.mine_blocks(6)
    async with (
        Anvil("--fork-url", anvil.url) as behind,
        FaultProxy(anvil.url, behind.url) as balancer,
        FollowingNode(agreement, tmp_path / "node.db", urls=[balancer.url]) as node,
    ):
        finalized: list[int] = []
        node.lease_cache.subscribe(lambda _: finalized.append(node.view.finalized))
        for _ in range(6):
            lease = await agreement.create()
            await agreement.approve(lease)
            await node.wait_for_head()
            finalized.append(node.view.finalized)
        assert node.follower.source is not None
        assert node.follower.source.counters.reorgs == 0
        assert finalized == sorted(finalized)
        assert node.follower.collect_metrics().contradictions == 0
        rows = await assert_equals_rebuild(node, tmp_path)
        assert len(rows) == 6
        assert any(key[0] for key in node.follower.collect_metrics().rpc_errors), "the stuck node was asked and contradicted itself"


@pytest.mark.parametrize("what", ["all", "some"])
async def test_row_06_partial_or_empty_logs_at_the_tip(anvil: Anvil, tmp_path: Path, what: str) -> None:
    """A block whose logs are withheld is found by its bloom filter at once; one with some missing, when it becomes final."""
    agreement = await anvil.deploy_agreement()
    async with FaultProxy(anvil.url) as proxy, FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
        await node.wait_for_head()
        asked: dict[str, int] = {}

        def drop(method: str, params: list[Any], result: Any) -> Any:
            if method != "eth_getLogs" or "blockHash" not in params[0]:
                return result
            block = params[0]["blockHash"]
            asked[block] = asked.get(block, 0) + 1
            return result if asked[block] > 1 else ([] if what == "all" else result[:1])

        proxy.after.append(drop)
        lease = await agreement.create()
        await agreement.approve(lease)
        await node.wait_for_head()
        if what == "all":
            known = node.known_lease(lease)
            assert known is not None
            assert known.data_product_id is not None
            assert node.follower.source is not None
            assert node.follower.source.counters.healed_logs >= 3
        await anvil.mine_blocks(8)
        await node.wait_until(lambda: (known := node.known_lease(lease)) is not None and known.data_product_id is not None)
        await assert_equals_rebuild(node, tmp_path)


async def test_row_06_partial_or_empty_logs_of_settled_ranges(anvil: Anvil, tmp_path: Path) -> None:
    """Half the logs of a backfill are dropped at random: the backfill check finds them, and the rows equal a rebuild's."""
    emitter = await Emitter.deploy(anvil)
    for number in range(40):
        lease = lease_number(number)
        await emitter.emit(created(lease), terms(lease), simple("LeaseApproved", lease))
        if number % 3 == 0:
            await emitter.emit(simple("LeaseCancelled", lease))
    await anvil.mine_blocks(3)
    async with FaultProxy(anvil.url) as proxy:
        flaky = [12]

        def drop(method: str, _params: list[Any], result: Any) -> Any:
            if method != "eth_getLogs" or flaky[0] == 0 or not result:
                return result
            flaky[0] -= 1
            return [one for one in result if proxy.random.random() < 0.5]

        proxy.after.append(drop)
        async with FollowingNode(emitter.agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            await node.wait_for_head()
            assert len(node.lease_cache) < 40, "something was missed at first"
            await node.wait_until(lambda: len(node.lease_cache) == 40 and flaky[0] == 0)

            async def audited() -> bool:
                assert node.follower.chain_store is not None
                async with node.follower.chain_store.unit_of_work() as tx:
                    return await tx.chain.find_backfill_range() is None

            for _ in range(400):
                if await audited():
                    break
                await asyncio.sleep(0.025)
            assert await audited()
            await assert_equals_rebuild(node, tmp_path)
            assert node.follower.rereading is not None
            assert node.follower.rereading.rereader.repaired_leases > 0


RANGES = {
    "alchemy": (
        -32602,
        "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the response "
        "size, or you can request any block range with a cap of 10K logs in the response. Based on your parameters and the "
        "response size limit, this block range should work: [{first}, {fits}]",
    ),
    "infura": (-32005, "query returned more than 10000 results. Try with this block range [{first}, {fits}]."),
    "quicknode": (-32614, "eth_getLogs is limited to a {span} range"),
    "ankr": (-32600, "block range is too wide"),
    "cloudflare": (-32047, "Invalid eth_getLogs request. 'fromBlock'-'toBlock' range too large. Max range: {span}"),
    "geth": (-32005, "query exceeds max results 20000, retry with the range {plain_first}-{plain_fits}"),
    "bsc": (-32000, "exceed maximum block range: {span}"),
    "drpc": (-32701, "ranges over {span} blocks are not supported on freetier"),
    "erigon": (-32000, "query timeout exceeded"),
    "base": (-32008, "backend response too large"),
}


@pytest.mark.parametrize("provider", RANGES)
async def test_row_07_range_limits(anvil: Anvil, tmp_path: Path, provider: str) -> None:
    """A range that is too large is asked again as the error suggests, else halved: the backfill ends, with few refusals."""
    agreement = await anvil.deploy_agreement()
    await anvil.mine_blocks(150)
    lease = await agreement.create()
    await agreement.approve(lease)
    await anvil.mine_blocks(150)
    code, text = RANGES[provider]
    refused = [0]

    async def limit(method: str, params: list[Any]) -> ProxyAnswer | None:
        if method != "eth_getLogs" or "fromBlock" not in params[0]:
            return None
        low, high = int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)
        if high - low + 1 <= 20:
            return None
        refused[0] += 1
        places = {"first": hex(low), "fits": hex(low + 19), "span": 20, "plain_first": low, "plain_fits": low + 19}
        return ProxyAnswer(error={"code": code, "message": text.format(**places)})

    async with FaultProxy(anvil.url) as proxy:
        proxy.before.append(limit)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            await node.wait_for_head()
            assert node.known_lease(lease) is not None
            assert 0 < refused[0] <= 12, "it learns, and grows slowly afterwards"
            assert not any(kind != "range" for _, kind in node.follower.collect_metrics().rpc_errors)
            await assert_equals_rebuild(node, tmp_path)


async def test_row_07_a_timeout_halves_the_range_too(anvil: Anvil, tmp_path: Path) -> None:
    """A range that times out is halved like one that is refused."""
    agreement = await anvil.deploy_agreement()
    await anvil.mine_blocks(120)

    async def slow(method: str, params: list[Any]) -> ProxyAnswer | None:
        if method == "eth_getLogs" and "fromBlock" in params[0]:
            span = int(params[0]["toBlock"], 16) - int(params[0]["fromBlock"], 16) + 1
            await asyncio.sleep(0.0 if span <= 40 else 2.0)
        return None

    async with FaultProxy(anvil.url) as proxy:
        proxy.before.append(slow)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], timeout=0.3) as node:
            await node.wait_for_head()
            assert ("timeout" in {kind for _, kind in node.follower.collect_metrics().rpc_errors}) is True


async def test_row_08_too_many_requests(anvil: Anvil, tmp_path: Path) -> None:
    """After HTTP 429 an endpoint backs off for as long as it says, and the next one is followed meanwhile."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    async with FaultProxy(anvil.url) as busy, FaultProxy(anvil.url) as free:
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[busy.url, free.url]) as node:
            await node.wait_for_head()
            await node.wait_until(lambda: node.follower.endpoints.members[1].verified, what="the witness is verified")
            refuse = answer_sometimes(busy, 1.0, ProxyAnswer(status=429, body=b"slow down", headers={"Retry-After": "2"}))
            busy.before.append(refuse)
            await anvil.mine_blocks(1)
            await node.wait_for_head(5.0)
            assert node.follower.endpoints.current is node.follower.endpoints.members[1]
            calls, began = len(busy.calls), time.monotonic()
            other = await agreement.create()
            await agreement.approve(other)
            await node.wait_for_head(5.0)
            while time.monotonic() < began + 1.0:
                await asyncio.sleep(0.05)
            assert len(busy.calls) - calls <= 1, "it is not asked while it rests"
            assert node.follower.collect_metrics().rpc_errors[(node.follower.endpoints.members[0].name, "rate-limit")] <= 6
            assert node.known_lease(other) is not None


FAULTS = {
    "timeouts": None,
    "500": ProxyAnswer(status=500, body=b"oops"),
    "502-with-html": ProxyAnswer(status=502, body=b"<html>Bad Gateway</html>"),
    "no-json": ProxyAnswer(body=b"<html>"),
    "half-a-json": ProxyAnswer(body=b'{"jsonrpc":"2.0","id":1,"result":['),
    "wrong-shape": ProxyAnswer(result={"surprise": 1}),
    "null": ProxyAnswer(result=None),
    "internal-error": ProxyAnswer(error={"code": -32603, "message": "Internal error"}),
    "redirect": ProxyAnswer(status=302, body=b"", headers={"Location": "http://127.0.0.1:1/"}),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_row_09_answers_that_are_none(anvil: Anvil, tmp_path: Path, fault: str) -> None:
    """With a fifth of all answers missing, broken or null, the node retries with pauses, and null never means "no logs"."""
    agreement = await anvil.deploy_agreement()
    for number in range(4):
        lease = await agreement.create(price=number + 1)
        await agreement.approve(lease)
    await anvil.mine_blocks(20)
    async with FaultProxy(anvil.url, seed=7) as proxy:
        said = FAULTS[fault]
        rule = answer_sometimes(proxy, 0.2, said) if said is not None else answer_first(6, ProxyAnswer(), ["none"])
        proxy.before.append(rule)
        if said is None:
            hang = answer_late(5.0)

            async def sometimes_late(method: str, params: list[Any]) -> ProxyAnswer | None:
                return await hang(method, params) if proxy.random.random() < 0.1 else None

            proxy.before.append(sometimes_late)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], timeout=0.3) as node:
            await node.wait_for_head(60.0)
            cancelled = await agreement.create(price=99)
            await agreement.approve(cancelled)
            await agreement.cancel(cancelled)
            await node.wait_for_head(60.0)
            proxy.before.clear()
            rows = await assert_equals_rebuild(node, tmp_path)
            assert len(rows) == 5
            assert sum(node.follower.collect_metrics().rpc_errors.values()) > 0


async def test_row_16_another_chain(anvil: Anvil, tmp_path: Path) -> None:
    """Every endpoint's chain id is checked: the one that serves another chain is named, and the node does not start."""
    agreement = await anvil.deploy_agreement()
    async with Anvil("--chain-id", "4242") as other:
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[anvil.url, other.url]) as node:
            assert node._task is not None
            with pytest.raises(Broken) as refusal:
                await asyncio.wait_for(asyncio.shield(node._task), 5)
        assert other.url in str(refusal.value)
        assert "4242" in str(refusal.value)
        assert "31337" in str(refusal.value)


async def test_row_16_an_address_without_code(anvil: Anvil, tmp_path: Path) -> None:
    """An address without code, or with another contract's, is named; the node does not start."""
    nowhere = AnvilAgreement(anvil, "0x" + "ab" * 20, 0)
    async with FollowingNode(nowhere, tmp_path / "node.db") as node:
        assert node._task is not None
        with pytest.raises(Broken, match="no contract at 0xabab"):
            await asyncio.wait_for(asyncio.shield(node._task), 5)


async def test_row_16_an_endpoint_that_moves_to_another_chain(anvil: Anvil, tmp_path: Path) -> None:
    """An endpoint that comes back as another chain after it was away is not followed any more; the other one is."""
    agreement = await anvil.deploy_agreement()
    async with (
        Anvil("--chain-id", "4242") as other,
        FaultProxy(anvil.url) as moving,
        FollowingNode(agreement, tmp_path / "node.db", urls=[moving.url, anvil.url]) as node,
    ):
        await node.wait_for_head()
        moving.refuse = True
        await anvil.mine_blocks(1)
        await node.wait_for_head()
        moving.upstreams = [other.url]
        moving.refuse = False
        key = (node.follower.endpoints.members[0].name, "wrong-chain")
        await node.wait_until(lambda: key in node.follower.collect_metrics().rpc_errors, what="noticed")
        lease = await agreement.create()
        await agreement.approve(lease)
        await node.wait_for_head()
        assert node.known_lease(lease) is not None
        assert node.lease_cache.chain_status().is_ready


async def test_row_18_asked_while_it_cannot_know(anvil: Anvil, tmp_path: Path) -> None:
    """With its endpoint gone the node answers "unknown, try again", never yes or no; and yes again when the endpoint is back."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    async with (
        FaultProxy(anvil.url) as proxy,
        FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url], max_silence=0.5) as node,
    ):
        await node.wait_for_proof(lease)
        assert isinstance(may_continue(node.known_lease(lease), node.lease_cache.chain_status()), Granted)
        proxy.refuse = True
        await node.wait_until(lambda: not node.lease_cache.chain_status().is_ready, what="distrust")
        answer = may_continue(node.known_lease(lease), node.lease_cache.chain_status())
        assert isinstance(answer, Unknown)
        assert answer.retry_after > 0
        assert "no chain endpoint has answered" in answer.detail
        calls = len(proxy.calls) + sum(node.follower.collect_metrics().rpc_errors.values())
        await asyncio.sleep(1.0)
        assert sum(node.follower.collect_metrics().rpc_errors.values()) - calls < 12, "it backs off"
        proxy.refuse = False
        await node.wait_until(lambda: node.lease_cache.chain_status().is_ready, what="trust again")


async def test_row_18_asked_before_it_caught_up(anvil: Anvil, tmp_path: Path) -> None:
    """A node that is still catching up says so instead of "no such lease"."""
    agreement = await anvil.deploy_agreement()
    lease = await agreement.create()
    await agreement.approve(lease)
    await anvil.mine_blocks(100)
    async with FaultProxy(anvil.url) as proxy:
        proxy.before.append(answer_late(0.1, ["eth_getLogs"]))
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            answer = may_continue(node.known_lease(lease), node.lease_cache.chain_status())
            assert isinstance(answer, Unknown)
            await node.wait_for_head()
            await node.wait_for_proof(lease)


async def test_row_18_a_head_that_grows_old(anvil: Anvil, tmp_path: Path) -> None:
    """After a chain stood still for a while the node is not ready: what it does not show may have happened."""
    agreement = await anvil.deploy_agreement()
    async with FollowingNode(agreement, tmp_path / "node.db", max_head_age=2.0) as node:
        await node.wait_for_head()
        assert node.lease_cache.chain_status().is_ready
        await node.wait_until(lambda: not node.lease_cache.chain_status().is_ready, seconds=6)
        assert "old" in (node.lease_cache.chain_status().not_ready_reason or "")
        await anvil.mine_blocks(1)
        await node.wait_until(lambda: node.lease_cache.chain_status().is_ready)
