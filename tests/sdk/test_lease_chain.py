"""The SDK's hand on the chain: the same journeys on the embedded chain and on anvil, and what it says when refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from eth_account import Account
from eth_account.messages import encode_typed_data

from pandacea.devchain import DevChain
from pandacea_sdk.chain import (
    ChainError,
    ContractReverted,
    Deployment,
    LeaseChain,
    LeaseStatus,
    NotMined,
    RpcRefused,
    RpcUnavailable,
    WrongDeployment,
    deploy,
)
from pandacea_sdk.protocol.contract import hash_product_id, lease_agreement
from tests.chain.anvil import ANVIL, KEYS, Anvil
from tests.prerequisites import skip_or_fail

DAY = 86_400
ETHER = 10**18
NO_LEASE = "0x" + "77" * 32


def word(number: int) -> str:
    """Make a 32-byte value from a number."""
    return f"0x{number:064x}"


@dataclass
class ChainUnderTest:
    """A chain with the contract on it, and its parties."""

    url: str
    keys: tuple[str, ...]
    travel: Callable[[int], Awaitable[None]]
    record: Deployment
    stack: AsyncExitStack

    async def connect_as(self, number: int, **options: Any) -> LeaseChain:
        """The contract, seen by the account of that number."""
        return await self.stack.enter_async_context(LeaseChain(self.url, self.record, key=self.keys[number], **options))

    def address(self, number: int) -> str:
        """Return an account's address in lower case."""
        return str(Account.from_key(self.keys[number]).address).lower()


OWNER, ARBITER, SPENDER, EARNER, OPERATOR = range(5)


@pytest.fixture(params=["embedded", "anvil"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[ChainUnderTest]:
    """Both kinds of chain, freshly deployed."""
    async with AsyncExitStack() as stack:
        if request.param == "embedded":
            chain = await stack.enter_async_context(DevChain())
            url, keys = chain.url, tuple(one.private_key for one in chain.accounts)

            async def travel(seconds: int) -> None:
                chain.time_travel(seconds)

        else:
            if not ANVIL.exists():
                skip_or_fail("anvil is not installed: npm install in tests/npm")
            anvil = await stack.enter_async_context(Anvil())
            url, keys = anvil.url, KEYS

            async def travel(seconds: int) -> None:
                await anvil.call_method("evm_increaseTime", seconds)
                await anvil.mine_blocks()

        record = await deploy(url, keys[OWNER], arbiter=Account.from_key(keys[ARBITER]).address)
        yield ChainUnderTest(url, keys, travel, record, stack)


async def create_lease(place: ChainUnderTest, **terms: Any) -> str:
    """A lease of the Spender on the Earner's product, approved."""
    spender, earner = await place.connect_as(SPENDER), await place.connect_as(EARNER)
    whole = {"price": ETHER, "expires_at": await spender.now() + 30 * DAY, "max_computations": 1, **terms}
    lease = await spender.create_lease(place.address(EARNER), "diabetes", **whole)
    await earner.approve(lease)
    return lease


async def test_a_deployment_is_what_was_compiled(place: ChainUnderTest) -> None:
    """Its record names chain, address, block and code; whoever connects by the record gets that contract."""
    assert place.record.code_hash == lease_agreement().runtime_code_hash
    chain = await place.connect_as(OWNER)
    assert (chain.chain_id, chain.contract) == (place.record.chain_id, place.record.address)
    assert await chain.current_arbiter() == place.address(ARBITER)
    assert Deployment.from_json(place.record.to_json()) == place.record


async def test_from_terms_to_payment(place: ChainUnderTest) -> None:
    """Created, approved by the operator, committed, read back, executed, paid, withdrawn to the wei."""
    spender, earner, operator = await place.connect_as(SPENDER), await place.connect_as(EARNER), await place.connect_as(OPERATOR)
    await earner.set_operator(place.address(OPERATOR))
    assert await spender.operator_of(place.address(EARNER)) == place.address(OPERATOR)
    expires_at = await spender.now() + 30 * DAY
    lease = await spender.create_lease(
        place.address(EARNER), "diabetes", price=ETHER, expires_at=expires_at, max_computations=2, max_price=2 * ETHER
    )
    state = await earner.lease(lease)
    assert (state.status, state.spender, state.earner) == (LeaseStatus.CREATED, place.address(SPENDER), place.address(EARNER))
    assert (state.price, state.expires_at, state.max_computations) == (ETHER, expires_at, 2)
    assert (state.data_product_id, state.arbiter) == (hash_product_id("diabetes"), place.address(ARBITER))
    await operator.approve(lease)
    assert await spender.committed_result(lease, word(1)) is None
    for computation in (1, 2):
        receipt = await operator.commit_result(lease, word(computation), word(10 + computation))
        assert receipt.event("ResultCommitted")["resultHash"] == word(10 + computation)
    assert await spender.committed_result(lease, word(2)) == word(12)
    await operator.execute(lease)
    await spender.finalize(lease)
    assert (await spender.lease(lease)).status is LeaseStatus.FINALIZED
    assert await spender.credit_of(place.address(EARNER)) == ETHER
    assert await earner.withdraw() == ETHER
    assert await spender.credit_of(place.address(EARNER)) == 0


async def test_a_dispute_won_and_a_cancelled_lease_are_withdrawn_together(place: ChainUnderTest) -> None:
    """The stake is found out by the SDK; both refunds add up, and may go to another address."""
    spender, earner, arbiter = await place.connect_as(SPENDER), await place.connect_as(EARNER), await place.connect_as(ARBITER)
    disputed, cancelled = await create_lease(place), await create_lease(place)
    receipt = await spender.raise_dispute(disputed, "nothing came")
    assert receipt.event("DisputeRaised")["stakeAmount"] == ETHER // 10
    await arbiter.resolve(disputed, valid=True)
    await earner.cancel(cancelled)
    assert [(await spender.lease(one)).status for one in (disputed, cancelled)] == [LeaseStatus.REFUNDED, LeaseStatus.CANCELLED]
    assert await spender.withdraw_to(place.address(OPERATOR)) == 2 * ETHER + ETHER // 10


async def test_a_dispute_nobody_decides_is_split(place: ChainUnderTest) -> None:
    """After 30 days, by anyone, half each where a result was committed; before, it says from when on."""
    spender, anyone = await place.connect_as(SPENDER), await place.connect_as(OPERATOR)
    lease = await create_lease(place)
    await (await place.connect_as(EARNER)).commit_result(lease, word(1), word(2))
    await spender.raise_dispute(lease, "")
    with pytest.raises(ContractReverted) as caught:
        await anyone.split(lease)
    raised = (await spender.lease(lease)).disputed_at
    assert (caught.value.name, caught.value.values) == ("TooEarly", {"leaseId": lease, "after_": raised + 30 * DAY})
    await place.travel(30 * DAY + 2)
    await anyone.split(lease)
    assert await spender.credit_of(place.address(EARNER)) == ETHER // 2


async def test_receipts_are_verified_and_contradictions_proved(place: ChainUnderTest) -> None:
    """The contract knows the Earner's signature; two results for one computation refund the lease."""
    spender = await place.connect_as(SPENDER)
    lease = await create_lease(place)

    def signed(result: int, by: int = EARNER) -> tuple[tuple[str, ...], str]:
        names = ("leaseId", "computationId", "requestHash", "productVersion", "resultHash")
        values = (lease, word(1), word(2), word(3), word(result))
        domain = {
            "name": "Pandacea LeaseAgreement",
            "version": "1",
            "chainId": spender.chain_id,
            "verifyingContract": spender.contract,
        }
        types = {"Receipt": [{"name": name, "type": "bytes32"} for name in names]}
        message = {name: bytes.fromhex(value[2:]) for name, value in zip(names, values, strict=True)}
        account = Account.from_key(place.keys[by])
        return values, "0x" + account.sign_message(encode_typed_data(domain, types, message)).signature.hex()

    assert await spender.verify_receipt(*signed(7))
    assert not await spender.verify_receipt(*signed(7, by=SPENDER))
    await spender.prove_equivocation(*signed(7), *signed(8))
    assert (await spender.lease(lease)).status is LeaseStatus.REFUNDED


async def test_the_owner_pauses_and_appoints(place: ChainUnderTest) -> None:
    """And the error a Spender meets meanwhile has the contract's name for it."""
    owner, spender = await place.connect_as(OWNER), await place.connect_as(SPENDER)
    await owner.pause()
    with pytest.raises(ContractReverted, match="EnforcedPause"):
        await create_lease(place)
    await owner.unpause()
    await owner.set_arbiter(place.address(OPERATOR))
    assert (await spender.lease(await create_lease(place))).arbiter == place.address(OPERATOR)


async def test_a_refusal_names_the_error_its_values_and_its_meaning_and_costs_nothing(place: ChainUnderTest) -> None:
    """Before anything is sent: the nonce has not moved."""
    spender, earner = await place.connect_as(SPENDER), await place.connect_as(EARNER)
    lease = await create_lease(place)
    before = await earner._rpc.call("eth_getTransactionCount", earner.address, "latest")
    with pytest.raises(ContractReverted) as caught:
        await earner.approve(lease)
    assert (caught.value.name, caught.value.values) == ("WrongStatus", {"leaseId": lease, "status": "approved"})
    assert "approveLease was refused by the contract" in str(caught.value)
    assert "does not lead anywhere" in str(caught.value)
    assert caught.value.transaction_hash is None
    assert await earner._rpc.call("eth_getTransactionCount", earner.address, "latest") == before
    with pytest.raises(ContractReverted, match="UnknownLease"):
        await spender.lease(NO_LEASE)


async def test_many_transactions_of_one_account_at_once_follow_each_other(place: ChainUnderTest) -> None:
    """Each has a nonce of its own."""
    spender = await place.connect_as(SPENDER)
    expires_at = await spender.now() + DAY
    leases = await asyncio.gather(
        *(spender.create_lease(place.address(EARNER), "diabetes", price=n, expires_at=expires_at) for n in range(5))
    )
    assert [(await spender.lease(lease)).price for lease in leases] == list(range(5))


async def test_a_transaction_undone_in_its_block_says_why(place: ChainUnderTest) -> None:
    """Estimated while it was possible, mined when it no longer was: the reason is asked for again, and the hash is named."""
    spender, earner = await place.connect_as(SPENDER), await place.connect_as(EARNER)
    lease = await create_lease(place)
    sender = earner._sender
    assert sender is not None
    data = lease_agreement().encode_call("commitResult", lease, word(1), word(2))
    asked = {"from": earner.address, "to": earner.contract, "data": "0x" + data.hex(), "value": "0x0"}
    await spender._rpc.call("eth_estimateGas", asked)
    await earner.cancel(lease)
    async with sender._lock:
        nonce = int(await earner._rpc.call("eth_getTransactionCount", earner.address, "pending"), 16)
        fees = await sender._fees("commitResult", 200_000)
        account = Account.from_key(place.keys[EARNER])
        from eth_utils.address import to_checksum_address

        whole = {
            **fees,
            "to": to_checksum_address(earner.contract),
            "data": data,
            "value": 0,
            "gas": 200_000,
            "nonce": nonce,
            "chainId": earner.chain_id,
        }
        raw = account.sign_transaction(whole).raw_transaction
        sent = await earner._rpc.call("eth_sendRawTransaction", "0x" + bytes(raw).hex())
    with pytest.raises(ContractReverted) as caught:
        await sender._outcome("commitResult", sent, asked)
    assert (caught.value.name, caught.value.transaction_hash) == ("WrongStatus", sent)
    assert caught.value.values == {"leaseId": lease, "status": "cancelled"}


async def test_the_wrong_place_is_noticed_before_anything_is_written(place: ChainUnderTest) -> None:
    """Another chain, no code, other code: each is named with what was found."""
    wrong_chain = replace(place.record, chain_id=place.record.chain_id + 1)
    nowhere = replace(place.record, address="0x" + "ab" * 20)
    other_code = replace(place.record, code_hash="0x" + "cd" * 32)
    for record, words in ((wrong_chain, "serves chain"), (nowhere, "no contract"), (other_code, "has the hash")):
        with pytest.raises(WrongDeployment, match=words):
            async with LeaseChain(place.url, record):
                pass
    async with LeaseChain(place.url, place.record.address) as chain:
        assert await chain.current_arbiter() == place.address(ARBITER)


async def test_without_a_key_it_only_reads(place: ChainUnderTest) -> None:
    """Writing says what is missing."""
    lease = await create_lease(place)
    async with LeaseChain(place.url, place.record) as chain:
        assert (await chain.lease(lease)).status is LeaseStatus.APPROVED
        with pytest.raises(ChainError, match="needs a key"):
            await chain.execute(lease)


# ---------------------------------------------------------------------------------------------- endpoints that misbehave


Answer = Callable[[dict[str, Any]], web.Response]


@pytest.fixture
async def endpoint() -> AsyncIterator[Callable[[Answer], Awaitable[str]]]:
    """An HTTP endpoint that answers as the test says; its URL."""
    runners: list[web.AppRunner] = []

    async def start(answer: Answer) -> str:
        async def handle(request: web.Request) -> web.Response:
            return answer(await request.json())

        app = web.Application()
        app.router.add_post("/", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda _: web.Response(text="<html>"), "HTTP 200 and not with JSON-RPC"),
        (lambda _: web.json_response([1]), "not with JSON-RPC"),
        (lambda _: web.json_response({"id": 1}), "neither result nor error"),
        (lambda _: web.Response(status=502), "HTTP 502"),
        (lambda _: web.Response(status=302, headers={"Location": "http://example.org/"}), "HTTP 302"),
    ],
)
async def test_what_is_no_json_rpc_answer_is_no_answer(
    endpoint: Callable[[Answer], Awaitable[str]], answer: Answer, words: str
) -> None:
    """Redirects are not followed; the error names host, port and method, not the URL with its key."""
    url = await endpoint(answer) + "/"
    with pytest.raises(RpcUnavailable, match=words) as caught:
        async with LeaseChain(url, "0x" + "ab" * 20):
            pass
    assert str(caught.value).startswith(f"http://{urlsplit(url).netloc} ")


async def test_an_endpoint_that_is_not_there_is_unavailable() -> None:
    """Nothing is known to have happened."""
    with pytest.raises(RpcUnavailable, match="did not answer eth_chainId"):
        async with LeaseChain("http://127.0.0.1:9", "0x" + "ab" * 20):
            pass


@pytest.mark.parametrize("url", ["http://rpc.example.org", "ftp://localhost", "localhost:8545", ""])
def test_an_endpoint_that_cannot_be_trusted_on_the_way_is_refused(url: str) -> None:
    """https, or http on this machine, unless told."""
    with pytest.raises(ValueError, match=r"https"):
        LeaseChain(url, "0x" + "ab" * 20)


async def test_an_error_of_the_endpoint_is_its_own(endpoint: Callable[[Answer], Awaitable[str]]) -> None:
    """Code and message as it sent them."""
    url = await endpoint(lambda asked: web.json_response({"id": asked["id"], "error": {"code": -32005, "message": "limit"}}))
    with pytest.raises(RpcRefused) as caught:
        async with LeaseChain(url, "0x" + "ab" * 20):
            pass
    assert (caught.value.method, caught.value.code, caught.value.message) == ("eth_chainId", -32005, "limit")


ZERO_ADDRESS_ERROR = "0xd92e233d"


@pytest.mark.parametrize(
    "error",
    [
        {"code": 3, "message": "execution reverted", "data": ZERO_ADDRESS_ERROR},
        {"code": -32015, "message": "VM execution error.", "data": f"Reverted {ZERO_ADDRESS_ERROR}"},
        {"code": -32000, "message": "VM Exception: reverted", "data": {"data": ZERO_ADDRESS_ERROR}},
    ],
    ids=["geth", "openethereum", "hardhat"],
)
async def test_revert_data_is_found_where_endpoints_put_it(
    endpoint: Callable[[Answer], Awaitable[str]], error: dict[str, Any]
) -> None:
    """Three spellings of the same refusal."""

    def answer(asked: dict[str, Any]) -> web.Response:
        told = {"error": error} if asked["method"] == "eth_call" else {"result": "0x01"}
        return web.json_response({"id": asked["id"], **told})

    async with LeaseChain(await endpoint(answer), "0x" + "ab" * 20, any_code=True) as chain:
        with pytest.raises(ContractReverted) as caught:
            await chain.lease(NO_LEASE)
    assert caught.value.name == "ZeroAddress"


ODD: list[Any] = [None, 7, "12", "0xzz", {}, "0x"]


@pytest.mark.parametrize("method", ["eth_chainId", "eth_getCode", "eth_call", "eth_getBlockByNumber"])
@pytest.mark.parametrize("odd", ODD)
async def test_an_answer_of_another_shape_is_no_answer(endpoint: Callable[[Answer], Awaitable[str]], method: str, odd: Any) -> None:
    """Whatever the endpoint sends, the caller gets an error of this package."""
    results = {"eth_chainId": "0x1", "eth_getCode": "0x01", "eth_call": word(1), "eth_getBlockByNumber": {"timestamp": "0x1"}}
    told = results | {method: odd}
    url = await endpoint(lambda asked: web.json_response({"id": asked["id"], "result": told[asked["method"]]}))

    async def trip() -> None:
        async with LeaseChain(url, "0x" + "ab" * 20, any_code=True) as chain:
            await chain.now()
            await chain.credit_of("0x" + "cd" * 20)

    with pytest.raises((RpcUnavailable, WrongDeployment)):
        await trip()


async def test_a_transaction_that_is_not_mined_in_time_is_named(endpoint: Callable[[Answer], Awaitable[str]]) -> None:
    """It may still be mined: the caller must look it up before sending another."""
    sent = "0x" + "5e" * 32
    results: dict[str, Any] = {
        "eth_chainId": "0x1",
        "eth_getCode": "0x01",
        "eth_estimateGas": "0x5208",
        "eth_getTransactionCount": "0x0",
        "eth_getBlockByNumber": {"baseFeePerGas": "0x1"},
        "eth_maxPriorityFeePerGas": "0x1",
        "eth_sendRawTransaction": sent,
        "eth_getTransactionReceipt": None,
    }
    url = await endpoint(lambda asked: web.json_response({"id": asked["id"], "result": results[asked["method"]]}))
    async with LeaseChain(url, "0x" + "ab" * 20, key=KEYS[0], any_code=True, mined_within=0.2) as chain:
        with pytest.raises(NotMined, match="look it up") as caught:
            await chain.approve(NO_LEASE)
    assert caught.value.transaction_hash == sent


async def test_a_lease_that_does_not_stand_for_the_terms_is_not_handed_on(endpoint: Callable[[Answer], Awaitable[str]]) -> None:
    """An endpoint that answers with somebody else's lease is caught by recomputing the id."""
    abi = lease_agreement()
    topics = [abi.event_topic("LeaseCreated"), "0x" + "99" * 32, word(1), word(2)]
    mined = {
        "blockNumber": "0x1",
        "status": "0x1",
        "gasUsed": "0x1",
        "contractAddress": None,
        "logs": [{"address": "0x" + "ab" * 20, "topics": topics, "data": word(5)}],
    }
    results: dict[str, Any] = {
        "eth_chainId": "0x1",
        "eth_getCode": "0x01",
        "eth_call": word(0),
        "eth_estimateGas": "0x5208",
        "eth_getTransactionCount": "0x0",
        "eth_getBlockByNumber": {"timestamp": hex(1_999_999_000)},
        "eth_gasPrice": "0x1",
        "eth_sendRawTransaction": word(3),
        "eth_getTransactionReceipt": mined,
    }
    url = await endpoint(lambda asked: web.json_response({"id": asked["id"], "result": results[asked["method"]]}))
    async with LeaseChain(url, "0x" + "ab" * 20, key=KEYS[0], any_code=True) as chain:
        with pytest.raises(ChainError, match="does not follow from these terms"):
            await chain.create_lease("0x" + "cd" * 20, "diabetes", price=5, expires_at=2_000_000_000)
