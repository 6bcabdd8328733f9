"""A lease from the signed catalogue: what is offered is compared with the chain on the Spender's own endpoint before money moves."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import rfc8785
from aiohttp import web

from pandacea_sdk.chain import Deployment, FeeAboveCap, LeaseChain, LeaseStatus, deploy
from pandacea_sdk.client import AsyncPandaceaClient, PandaceaClient
from pandacea_sdk.errors import LeaseError, RequestError, UntrustedResult, UsageError
from pandacea_sdk.protocol.contract import hash_product_id
from pandacea_sdk.protocol.hashing import KeySigner, eip191_digest
from tests.chain.anvil import ANVIL, EARNER, KEYS, OPERATOR, SPENDER, STRANGER, Anvil
from tests.faults.proxy import FaultProxy
from tests.prerequisites import skip_or_fail
from tests.sdk.conftest import FakeNode, problem_response

DAY = 86_400
PRICE = 10**15


def sign(key: str, message: bytes) -> str:
    return "0x" + KeySigner(key).sign_digest(eip191_digest(message)).hex()


@dataclass
class Offered:
    """A node that offers `diabetes`. What it states may be changed before it is signed (`document`, `about`) or after."""

    record: Deployment
    node_key: str = KEYS[4]
    product_key: str = KEYS[4]
    document: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    instead: dict[str, Any] = field(default_factory=dict)
    product_instead: dict[str, Any] = field(default_factory=dict)

    def well_known(self) -> dict[str, Any]:
        told = {
            "chain_id": self.record.chain_id,
            "contract": self.record.address,
            "earner": EARNER.address.lower(),
            "authorities": ["node.example"],
            "version": "test",
            "signer": KeySigner(self.node_key).address,
        } | self.about
        return told | {"signature": sign(self.node_key, rfc8785.dumps(told))} | self.instead

    def product(self) -> dict[str, Any]:
        document = {"product_id": "diabetes", "name": "D", "price_wei": str(PRICE), "rules": {}, "assets": []} | self.document
        version = "0x" + hashlib.sha256(rfc8785.dumps(document)).hexdigest()
        signature = sign(self.product_key, bytes.fromhex(version[2:]))
        told = {"productId": "diabetes", "dataProductId": hash_product_id("diabetes"), "priceWei": document["price_wei"]}
        return told | {"version": version, "document": document, "signature": signature} | self.product_instead

    async def answer(self, request: web.Request, _body: dict[str, Any]) -> web.StreamResponse | dict[str, Any] | None:
        if request.path == "/.well-known/pandacea":
            return self.well_known()
        if request.path == "/api/v1/products/diabetes":
            return self.product()
        return problem_response("product-unknown", 404)


@dataclass
class OfferedMarket:
    """The chain, the node's offer, and a Spender whose endpoint is a proxy that counts."""

    anvil: Anvil
    proxy: FaultProxy
    node: FakeNode
    offered: Offered

    def client(self, **options: Any) -> AsyncPandaceaClient:
        whole = {"key": KEYS[2], "rpc_url": self.proxy.url, "contract": self.offered.record.address, **options}
        return AsyncPandaceaClient(self.node.url, **whole)

    async def refused(self, error: type[Exception], words: str, product_id: str = "diabetes", **options: Any) -> None:
        """Creating a lease raises this, and nothing was sent."""
        async with self.client() as client:
            with pytest.raises(error, match=words):
                await client.create_lease(product_id, **({"max_price": PRICE} | options))
        assert not [method for method, _ in self.proxy.calls if method == "eth_sendRawTransaction"]


@pytest.fixture
async def market(node: FakeNode) -> AsyncIterator[OfferedMarket]:
    if not ANVIL.exists():
        skip_or_fail("anvil is not installed: npm install in tests/npm")
    async with Anvil() as anvil, FaultProxy(anvil.url) as proxy:
        record = await deploy(anvil.url, KEYS[0], arbiter=STRANGER.address)
        async with LeaseChain(anvil.url, record, key=KEYS[1]) as earner:
            await earner.set_operator(OPERATOR.address)
        made = OfferedMarket(anvil, proxy, node, Offered(record))
        node.hook = made.offered.answer
        yield made


async def test_earner_contract_and_price_are_the_signed_ones(market: OfferedMarket) -> None:
    """The lease on the chain is what the catalogue says; its id comes back."""
    async with market.client() as client, LeaseChain(market.anvil.url, market.offered.record) as chain:
        lease_id = await client.create_lease("diabetes", computations=20, days=9, max_price=2 * PRICE, arbiter=STRANGER.address)
        lease = await chain.lease(lease_id)
        assert (lease.status, lease.spender, lease.earner) == (
            LeaseStatus.CREATED,
            SPENDER.address.lower(),
            EARNER.address.lower(),
        )
        assert (lease.price, lease.data_product_id, lease.max_computations) == (PRICE, hash_product_id("diabetes"), 20)
        assert 0 <= lease.created_at + 9 * DAY - lease.expires_at <= 5
        assert lease.arbiter == STRANGER.address.lower()


async def test_the_synchronous_client_creates_the_same(market: OfferedMarket) -> None:
    """With an account, too; the Earner may sign by itself."""
    market.offered.node_key = market.offered.product_key = KEYS[1]
    with PandaceaClient(market.node.url, SPENDER, rpc_url=market.anvil.url, contract=market.offered.record.address) as client:
        lease_id = client.create_lease("diabetes", max_price=PRICE)
    async with LeaseChain(market.anvil.url, market.offered.record) as chain:
        assert (await chain.lease(lease_id)).max_computations == 1


# ------------------------------------------------------------------------------------------------ before money moves


async def test_a_product_that_is_not_there_is_refused(market: OfferedMarket) -> None:
    """A slip in its id costs nothing."""
    await market.refused(RequestError, "product-unknown", "diabetez")


async def test_a_price_nobody_agreed_to_is_named_and_refused(market: OfferedMarket) -> None:
    """By default a lease may cost nothing; the sentence says what to pass."""
    async with market.client() as client:
        with pytest.raises(UsageError, match=rf"costs {PRICE} wei \(0\.001 of .* pass max_price={PRICE} to agree"):
            await client.create_lease("diabetes")
    await market.refused(UsageError, "max_price is", max_price=PRICE - 1)
    await market.refused(UsageError, "a whole number", max_price=0.001)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"product_instead": {"priceWei": "1"}}, "the list states a price of '1' wei, the signed document"),
        ({"document": {"price_wei": "1e3"}}, "the signed document '1e3'"),
        ({"document": {"price_wei": 5}}, "the signed document 5"),
        ({"document": {"product_id": "wine"}}, "is of the product 'wine'"),
        ({"product_instead": {"dataProductId": "0x" + "12" * 32}}, "is of the product"),
        ({"product_instead": {"version": "0x" + "12" * 32}}, "not the hash of its document"),
        ({"product_instead": {"document": None}}, "no signed document"),
        ({"product_instead": {"signature": "0x12"}}, "nobody signed the product's version"),
        ({"instead": {"signature": "0x" + "12" * 65}}, "is not signed by the signer it names"),
        ({"instead": {"signature": None}}, "is not signed by the signer it names"),
        ({"instead": {"earner": STRANGER.address.lower()}}, "is not signed by the signer it names"),
        ({"about": {"earner": "somebody"}}, "states no earner"),
        ({"about": {"chain_id": "1"}}, "names no chain id"),
    ],
)
async def test_an_offer_that_contradicts_itself_is_refused(market: OfferedMarket, change: dict[str, Any], words: str) -> None:
    """Whatever is signed and whatever is not: the parts must agree."""
    market.offered.__dict__.update(change)
    await market.refused(Exception, words)


@pytest.mark.parametrize("which", ["node_key", "product_key"])
async def test_an_offer_signed_by_somebody_else_is_refused(market: OfferedMarket, which: str) -> None:
    """A node that speaks for an Earner who never heard of it; who is the Earner's operator, the Spender's endpoint says."""
    setattr(market.offered, which, KEYS[3])
    await market.refused(UntrustedResult, f"signed by {STRANGER.address.lower()}, who is neither the Earner")


async def test_an_operator_that_was_replaced_offers_nothing(market: OfferedMarket) -> None:
    """Its key may be stolen."""
    async with LeaseChain(market.anvil.url, market.offered.record, key=KEYS[1]) as earner:
        await earner.set_operator(STRANGER.address)
    await market.refused(UntrustedResult, "neither the Earner")


async def test_another_contract_or_chain_than_the_spenders_is_refused(market: OfferedMarket) -> None:
    """The client's contract is the Spender's own knowledge; the node's word must equal it."""
    market.offered.about = {"contract": "0x" + "ab" * 20}
    await market.refused(UntrustedResult, "The node serves the contract")
    market.offered.about = {"chain_id": 1}
    await market.refused(UntrustedResult, "serves chain 31337, but you asked for chain 1")


async def test_other_code_at_the_contracts_address_is_refused(market: OfferedMarket) -> None:
    """Asked of the Spender's own endpoint."""
    await market.anvil.call_method("anvil_setCode", market.offered.record.address, "0x6001")
    await market.refused(UntrustedResult, "another contract or version")


async def test_another_judge_than_the_one_meant_is_refused(market: OfferedMarket) -> None:
    """By name, or because the judge is a side of the lease."""
    await market.refused(UsageError, "the arbiter of leases created now is", arbiter=SPENDER.address)
    async with LeaseChain(market.anvil.url, market.offered.record, key=KEYS[0]) as owner:
        await owner.set_arbiter(EARNER.address)
    await market.refused(UsageError, "would judge its own disputes")


async def test_terms_and_fees_are_held_to_their_bounds(market: OfferedMarket) -> None:
    """The same as those of `LeaseChain`, by the same checks."""
    await market.refused(UsageError, "at most 730 days later", days=731)
    await market.refused(UsageError, "must lie after", days=0)
    await market.refused(UsageError, "days is 0.5", days=0.5)
    await market.refused(FeeAboveCap, "a fee of", max_fee=1)
    await market.refused(LeaseError, "NoComputations", computations=0)


async def test_without_an_endpoint_or_an_account_no_lease_is_made(market: OfferedMarket) -> None:
    """It says what is missing."""
    async with AsyncPandaceaClient(market.node.url, KEYS[2]) as client:
        with pytest.raises(UsageError, match="rpc_url=, contract="):
            await client.create_lease("diabetes")

    class Wallet:
        address = SPENDER.address

        def sign_digest(self, digest: bytes) -> bytes:
            return digest

    async with market.client(key=Wallet()) as client:
        with pytest.raises(UsageError, match="signs requests and no transactions"):
            await client.create_lease("diabetes")


def test_both_clients_have_the_same_methods() -> None:
    """What a page says of one holds for the other."""
    names = {name for name in dir(AsyncPandaceaClient) if not name.startswith("_")}
    assert names == {name for name in dir(PandaceaClient) if not name.startswith("_")}


async def test_a_requested_lease_is_a_handle_with_its_bill(market: OfferedMarket) -> None:
    """Price, Earner and contract as signed and paid; a price above the most that is agreed to is refused before anything is sent."""
    async with market.client() as client, LeaseChain(market.anvil.url, market.offered.record) as chain:
        with pytest.raises(UsageError, match=f"max_price={PRICE}"):
            await client.request_lease("diabetes", computations=20, days=30)
        assert not [method for method, _ in market.proxy.calls if method == "eth_sendRawTransaction"]
        handle = await client.request_lease(market.offered.product(), computations=20, days=30, max_price=PRICE)
        assert (await chain.lease(handle.id)).max_computations == 20
        assert handle.bill is not None
        assert (handle.bill.price, handle.bill.earner) == (PRICE, EARNER.address.lower())
        assert str(handle.bill).startswith("diabetes: 0.001 for 20 computations in 30 days")
