"""Every answer an endpoint gives may be poison: it may stop the following, never the process, never the database."""

from __future__ import annotations

import asyncio
import copy
import json
import random
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pandacea.chain.approvals.proof import ApprovalProver
from pandacea.chain.approvals.signed_transactions import UnprovableError, recover_transaction
from pandacea.chain.confidence import DEFAULT_CONFIDENCE
from pandacea.chain.contract_versions import ContractVersion, detect_contract_version, fetch_v0_lease, find_deploy_block
from pandacea.chain.events import address_topic, decode_event, decode_logs
from pandacea.chain.finality import FinalityViolatedError
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.logs import BloomFilterCheck, LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import RpcFault, classify_rpc_error
from pandacea.chain.rpc_messages import MAX_QUANTITY, JsonRpcError, RpcTransaction, TransactionReceipt
from pandacea.chain.source import ChainSource
from pandacea.domain.chain_view import BEFORE_GENESIS, NO_HASH, BlockRef
from pandacea.domain.ids import HASH32, Address, BlockNumber, Hash32, LeaseKey, Timestamp, Wei
from pandacea.domain.lease import is_well_formed
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Broken
from pandacea.flows.following.follow import apply_update, refresh_leases
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from tests.chain.anvil import EARNER, PRODUCT, SPENDER, abi_word
from tests.chain.emitter import TOPIC, lease_number
from tests.chain.simulated import CONTRACT, SimulatedChain, SimulatedEndpoint

ME = Address(EARNER.address.lower())
LEASE = lease_number(1)
GENESIS = BlockRef(BEFORE_GENESIS, NO_HASH, NO_HASH, Timestamp(0))

HASH = Hash32("0x" + "ab" * 32)
POISONS: list[Any] = [
    *(None, True, 0, -1, 7, 2**63, 10**40, 1.5, float("1e300")),
    *("", "0x", "0X1", "0x0", "-0x1", "0x_1", " 0x1 ", "0x1\n", "1", "zz", "\u0661\u0662", "\u00b2", "\0", "0x" + "\uff11" * 64),
    *("0x" + "zz" * 32, "0x" + "f" * 64, "0x" + "f" * 63, "0x" + "f" * 65, "0x" + "f" * 5000, "9" * 5000, "0x" + "F" * 64),
    *(HASH, "0x" + "ab" * 20, "0x" + "00" * 31 + "63", "0x" + "00" * 32 * 5),
    *([], {}, [[]], {"from": "9" * 5000, "to": "0x1"}, ["0x" + "zz" * 32] * 4),
    *("block range too large: limited to , blocks", "maximum block range: " + "9" * 5000, "exceed " * 100_000),
]
"""What no honest node sends."""


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside an answer."""
    found = [here]
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        found.extend(places(part, (*here, key)))
    return found


def poisoned(rng: random.Random, answer: Any) -> Any:
    """An honest answer with one to three things in it replaced, left out or repeated."""
    whole = {"answer": copy.deepcopy(answer)}
    for _ in range(rng.randint(1, 3)):
        path = rng.choice(places(whole)[1:])
        holder: Any = whole
        for key in path[:-1]:
            holder = holder[key]
        match rng.choice(["replace", "replace", "replace", "drop", "repeat"]):
            case "drop" if len(path) > 1:
                del holder[path[-1]]
            case "repeat" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[path[-1]]))
            case _:
                holder[path[-1]] = copy.deepcopy(rng.choice(POISONS))  # or the next poison would grow into itself
        if "answer" not in whole or not places(whole)[1:]:
            break
    return whole.get("answer")


def body(rng: random.Random, answer: Any) -> bytes:
    """The bytes that come: JSON-RPC, an error, or nothing like it."""
    kind = rng.random()
    if kind < 0.05:
        return b"[" * 100_000 + b"]" * 100_000
    if kind < 0.1:
        return b'{"jsonrpc":"2.0","id":1,"result":"\\ud800"}'
    if kind < 0.15:
        error = {"code": rng.choice([3, -32000, -32005, 10**30]), "message": rng.choice(POISONS), "data": rng.choice(POISONS)}
        return json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode()
    whole = json.dumps({"jsonrpc": "2.0", "id": 1, "result": answer}).encode()
    return whole[: rng.randrange(len(whole))] if kind < 0.2 else whole


class Poisoner:
    """The provider under an endpoint: honest answers from a function, spoilt now and then."""

    def __init__(self, rng: random.Random, honest: Callable[[str, list[Any]], Any], share: float) -> None:
        self.rng, self.honest, self.share = rng, honest, share

    async def make_request(self, method: str, params: list[Any]) -> tuple[int, int, bytes]:
        answer = self.honest(method, params)
        if self.rng.random() >= self.share:
            return 200, 0, json.dumps({"jsonrpc": "2.0", "id": 1, "result": answer}).encode()
        return 200, 0, body(self.rng, poisoned(self.rng, answer))


def endpoint_of(rng: random.Random, honest: Callable[[str, list[Any]], Any], share: float = 1.0) -> Endpoint:
    endpoint = Endpoint("http://poison.test/")
    endpoint._provider = Poisoner(rng, honest, share)  # type: ignore[assignment]
    return endpoint


TRANSACTION = {
    "hash": HASH, "nonce": "0x1", "gas": "0x5208", "value": "0x0", "input": "0x", "r": "0x" + "11" * 32, "s": "0x" + "11" * 32,
    "v": "0x1", "type": "0x2", "to": CONTRACT, "blockHash": HASH, "blockNumber": "0x1", "chainId": "0x7a69", "gasPrice": "0x1",
    "maxFeePerGas": "0x2", "maxPriorityFeePerGas": "0x1", "yParity": "0x1", "accessList": [{"address": CONTRACT, "storageKeys": [HASH]}],
    "authorizationList": [{"chainId": "0x1", "address": CONTRACT, "nonce": "0x0", "r": "0x1", "s": "0x1", "yParity": "0x0"}],
    "blobVersionedHashes": [HASH], "maxFeePerBlobGas": "0x1",
}  # fmt: skip


def a_log(name: str, *topics: str, data: str = "0x") -> tuple[tuple[str, ...], str]:
    return (TOPIC[name], *topics), data


LOGS = [
    a_log("LeaseCreated", LEASE, address_topic(SPENDER.address.lower()), address_topic(ME), data="0x" + abi_word(5)),
    a_log("LeaseTerms", LEASE, PRODUCT, data="0x" + abi_word(2_000_000_000) + abi_word(3)),
    a_log("LeaseApproved", LEASE),
    a_log("ResultCommitted", LEASE, HASH, data=HASH),
    a_log(
        "DisputeRaised",
        LEASE,
        address_topic(SPENDER.address.lower()),
        address_topic(ME),
        data="0x" + abi_word(64) + abi_word(9) + abi_word(1) + "61" + "00" * 31,
    ),
    a_log("DisputeResolved", LEASE, data="0x" + abi_word(0) + abi_word(9)),
]


def chain_of_leases() -> SimulatedChain:
    chain = SimulatedChain(finality=4)
    for log in LOGS:
        chain.mine([log])
    chain.mine([])
    return chain


def honest_of(chain: SimulatedChain) -> Callable[[str, list[Any]], Any]:
    simulated = SimulatedEndpoint(chain, random.Random(0))

    def answer(method: str, params: list[Any]) -> Any:
        match method:
            case "eth_getTransactionByHash":
                return TRANSACTION
            case "eth_getTransactionReceipt":
                return {
                    "transactionHash": HASH,
                    "blockHash": HASH,
                    "blockNumber": "0x1",
                    "status": "0x1",
                    "logs": chain.blocks[3].json_logs(),
                }
            case "eth_chainId" | "eth_estimateGas":
                return "0x7a69"
            case "eth_getCode" | "eth_call":
                return "0x" + abi_word(1) * 8
            case _:
                return simulated._answer(method, params)

    return answer


RECORD = LeaseRecord(LeaseKey(31337, CONTRACT, LEASE), Address(SPENDER.address.lower()), ME, Wei(5), BlockNumber(1))
RECORD.terms = (PRODUCT, Timestamp(2_000_000_000), 3)
RECORD.fact_blocks[0] = BlockNumber(3)
RECORD.approved_tx = HASH


async def reads_headers(endpoint: Endpoint) -> None:
    for header in (await endpoint.get_header("latest"), await endpoint.get_header_nullable("safe")):
        if header is not None:
            found = header.to_block_ref()
            assert HASH32.fullmatch(found.hash)
            assert HASH32.fullmatch(found.parent)
            assert 0 <= found.number < MAX_QUANTITY
            assert 0 <= found.timestamp < MAX_QUANTITY
            BloomFilterCheck(CONTRACT).may_contain(header.logs_bloom)


async def reads_logs(endpoint: Endpoint) -> None:
    _, logs = await LogReader(CONTRACT).read_range(endpoint, 0, 6)
    try:
        events, _ = decode_logs(logs, address_topic(ME))
    except ValueError:
        events = []
    for event in [seen.event for seen in events] + [
        event for log in logs if (event := decode_event(log.topics, log.data)) is not None
    ]:
        assert is_well_formed(event)
        assert all(value < 2**256 for value in vars_of(event) if isinstance(value, int))


def vars_of(event: Any) -> list[Any]:
    return [getattr(event, name) for name in event.__slots__]


async def reads_numbers(endpoint: Endpoint) -> None:
    assert 0 <= await endpoint.get_chain_id() < MAX_QUANTITY
    assert 0 <= await endpoint.call_quantity("eth_estimateGas", [{}]) < MAX_QUANTITY


async def reads_calls(endpoint: Endpoint) -> None:
    await endpoint.get_code(CONTRACT)
    await fetch_v0_lease(endpoint, CONTRACT, LEASE, "latest")
    await detect_contract_version(endpoint, CONTRACT, ME)
    await find_deploy_block(endpoint, CONTRACT)


async def reads_transactions(endpoint: Endpoint) -> None:
    found = await endpoint.call_nullable("eth_getTransactionByHash", [HASH], RpcTransaction)
    if found is not None:
        recover_transaction(found)


async def reads_receipts(endpoint: Endpoint) -> None:
    found = await endpoint.call_nullable("eth_getTransactionReceipt", [HASH], TransactionReceipt)
    if found is not None:
        endpoint.parse_number(found.status, "eth_getTransactionReceipt")
        endpoint.parse_number(found.block_number, "eth_getTransactionReceipt")


async def proves(endpoint: Endpoint) -> None:
    for interface in ContractVersion:
        prover = ApprovalProver(CONTRACT, 31337, interface, ME, frozenset(), 0)
        await prover.prove_approval(RECORD, endpoint, endpoint)


@cache
def honest() -> Callable[[str, list[Any]], Any]:
    return honest_of(chain_of_leases())


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32))
def test_a_poisoned_answer_is_a_typed_fault_or_well_formed(seed: int) -> None:
    """Headers, logs, receipts, transactions, calls and numbers: what is read of them has its form, or is refused in one way."""
    rng = random.Random(seed)
    read: Callable[[Endpoint], Awaitable[None]] = rng.choice(
        [reads_headers, reads_logs, reads_numbers, reads_calls, reads_transactions, reads_receipts, proves]
    )

    async def read_once() -> None:
        with suppress(RpcFault, UnprovableError, Broken):  # said, typed, and nothing was decided
            await read(endpoint_of(rng, honest(), share=rng.choice([1.0, 0.3])))

    asyncio.run(read_once())


@settings(max_examples=300, deadline=None)
@given(
    st.text(),
    st.integers(-(2**62), 2**62),
    st.recursive(st.none() | st.text(), lambda inside: st.dictionaries(st.sampled_from(["from", "to"]), inside)),
)
def test_any_error_of_an_endpoint_is_classified(message: str, code: int, data: Any) -> None:
    """Whatever an error says, it has a kind."""
    classify_rpc_error(JsonRpcError(code, message, data))


class FixedClock:
    def now(self) -> float:
        return 1_700_000_100.0


@cache
def empty_database() -> Path:
    """Its schema in place, once for all examples."""
    path = Path(tempfile.mkdtemp()) / "empty.db"

    async def make() -> None:
        database = await DatabaseEngine.open(f"sqlite+aiosqlite:///{path}")
        await upgrade(database)
        await database.close()

    asyncio.run(make())
    return path


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_a_poisoned_chain_leaves_a_database_that_opens(seed: int) -> None:
    """Following a poisoner ends in typed faults alone; then the database is read back, and an honest endpoint's leases are there."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "node.db"
        shutil.copy(empty_database(), path)
        asyncio.run(follow(rng, path))


async def follow(rng: random.Random, path: Path) -> None:
    chain = chain_of_leases()
    database = await DatabaseEngine.open(f"sqlite+aiosqlite:///{path}")
    chain_store = SqlChainStore(database, 31337, CONTRACT)
    cache = InMemoryLeaseCache(FixedClock(), DEFAULT_CONFIDENCE)
    source = ChainSource(CONTRACT, ME, LogReader(CONTRACT), None, lambda endpoint: endpoint, settle_every=2)
    view = await chain_store.open_deployment(ME, "v1", 0, GENESIS)
    poison = endpoint_of(rng, honest_of(chain), share=rng.choice([0.1, 0.3]))
    for _ in range(25):
        try:
            step = await source.plan_update(poison, view)
        except (RpcFault, FinalityViolatedError):
            continue
        if step is not None:
            view = await apply_update(step, view, chain_store, cache, None)
        if rng.random() < 0.2:
            chain.mine([rng.choice(LOGS)])
    again = await chain_store.find_view()
    assert again == view
    fresh = InMemoryLeaseCache(FixedClock(), DEFAULT_CONFIDENCE)
    async for page in chain_store.load_approved():
        fresh.load_rows(page)
    await refresh_leases(await chain_store.list_touched(), view, chain_store, fresh)
    assert all(HASH32.fullmatch(lease_id) for lease_id in fresh.list_ids())
    await database.close()
