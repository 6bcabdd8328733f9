"""Contract wallets (ERC-1271) on a real chain: the node accepts what the wallet accepts, and a misbehaving wallet can only reject."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from pandacea.api.auth import Authenticator
from pandacea.api.nonces import MemoryNonces
from pandacea.api.rate_limit import RateLimiter
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.rpc import Endpoint
from pandacea.chain.spenders.accounts import AccountKind
from pandacea.chain.spenders.erc1271 import MAGIC_VALUE, Erc1271Verifier
from pandacea.domain.access import ChainStatus
from pandacea.domain.ids import Address, BlockNumber, Timestamp
from pandacea.errors import Unavailable
from pandacea_sdk.client import AsyncPandaceaClient
from pandacea_sdk.protocol.hashing import Signer
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.signing import RequestHead, SignedRequest, SigningPolicy
from tests.chain.anvil import AnvilAgreement
from tests.chain.wallet_setup import DIGEST, OTHER, OWNS, FakeAccountKinds, WalletBehaviour, WalletSetup, wallet_setup


@pytest.fixture
async def world(agreement: AnvilAgreement) -> AsyncIterator[WalletSetup]:
    async with wallet_setup(agreement) as made:
        yield made


async def test_the_wallet_decides_whose_signature_is_its_own(world: WalletSetup) -> None:
    """A wallet's signature is its owner's, and nobody else's."""
    assert await world.accepts()
    assert not await world.accepts(OTHER)


@pytest.mark.parametrize("mood", [mood for mood in WalletBehaviour if mood is not WalletBehaviour.HONEST])
async def test_a_wallet_that_misbehaves_says_no(world: WalletSetup, mood: WalletBehaviour) -> None:
    """A wallet that refuses, reverts, burns all gas, or answers too much, too little or more than the magic value has rejected, quickly."""
    await world.set_behaviour(mood)
    await world.confirm_all()
    start = time.monotonic()
    assert not await world.accepts()
    assert time.monotonic() - start < 5


async def test_a_yes_counts_only_where_it_stands_at_both_blocks(world: WalletSetup) -> None:
    """An acceptance that is not confirmed yet may be undone; one that was withdrawn no longer holds."""
    await world.set_behaviour(WalletBehaviour.REFUSE)
    await world.confirm_all()
    await world.set_behaviour(WalletBehaviour.HONEST)
    assert not await world.accepts()
    await world.confirm_all()
    assert await world.accepts()
    await world.set_behaviour(WalletBehaviour.REFUSE)
    assert not await world.accepts()


async def test_an_account_without_code_is_no_wallet(world: WalletSetup) -> None:
    """An account without code answers nothing, which is not the magic value."""
    assert not await world.accepts(OWNS, Address("0x" + "ab" * 20)), "not named, one operator"
    world.verifier._named_wallets |= {Address(OTHER.address)}
    assert not await world.accepts(OWNS, Address(OTHER.address))


async def test_who_may_be_asked(agreement: AnvilAgreement) -> None:
    """With endpoints of one operator only named wallets are called; with two, every known contract; an EOA never."""
    async with wallet_setup(agreement, named=False) as world:
        assert not await world.accepts()
        assert world.calls == 0
    async with wallet_setup(agreement, agreement.chain.url + "/", named=False) as world:
        assert await world.accepts()
        world.account_kinds.kinds[world.wallet] = AccountKind.UNKNOWN
        with pytest.raises(Unavailable, match="does not know yet"):
            await world.accepts()
    async with wallet_setup(agreement, named=True) as world:
        world.account_kinds.kinds[world.wallet] = AccountKind.UNKNOWN
        assert await world.accepts()
        world.account_kinds.kinds[world.wallet] = AccountKind.EOA
        calls = world.calls
        assert not await world.accepts()
        assert world.calls == calls, "also where it was named by mistake"


async def test_two_urls_of_one_operator_are_one_voice(agreement: AnvilAgreement) -> None:
    """Unless the node's operator says otherwise, two endpoints of this machine count as one operator's."""
    code_hash = await agreement.code_hash()
    urls = (agreement.chain.url, agreement.chain.url + "/two")
    endpoints = EndpointPool(
        [Endpoint(url) for url in urls], chain_id=31337, contract=Address(agreement.address), code_hash=code_hash
    )
    known = FakeAccountKinds()
    asked = Erc1271Verifier(endpoints, lambda: ChainStatus(BlockNumber(0), Timestamp(0), BlockNumber(0), None), lambda: known)
    assert not await asked.accepts(Address("0x" + "ab" * 20), DIGEST, OWNS.sign_digest(DIGEST))
    await endpoints.close()


async def test_without_the_chain_nobody_can_know(world: WalletSetup) -> None:
    """When the node is not ready or an endpoint does not answer, the answer is 503, not 401."""
    world.distrust = "no endpoint answers."
    with pytest.raises(Unavailable):
        await world.accepts()
    world.distrust = None
    await world.chain.kill()
    with pytest.raises(Unavailable):
        await world.accepts()


async def test_a_lying_endpoint_cannot_sign_alone(agreement: AnvilAgreement) -> None:
    """Endpoints of two operators are asked where there are two, and each may reject; when one is silent the answer is unknown."""
    silent = False

    async def lie(request: web.Request) -> web.Response:
        asked = await request.json()
        if asked["method"] == "eth_call":
            if silent:
                return web.Response(status=502)
            return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": "0x" + MAGIC_VALUE.hex()})
        said = await agreement.chain.call_method(asked["method"], *asked["params"])
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": said})

    app = web.Application()
    app.router.add_post("/", lie)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with wallet_setup(agreement, f"http://127.0.0.1:{runner.addresses[0][1]}") as world:
        assert await world.accepts()
        assert not await world.accepts(OTHER)
        silent = True
        assert not await world.accepts(OTHER)
        with pytest.raises(Unavailable):
            await world.accepts()
    await runner.cleanup()


class WalletSigner:
    """As in docs/sdk.md: requests name the wallet, its owner's key signs."""

    def __init__(self, address: str, owner: Signer) -> None:
        self.address = address
        self._owner = owner

    def sign_digest(self, digest: bytes) -> bytes:
        return self._owner.sign_digest(digest)


async def test_a_spender_signs_for_a_wallet_with_a_signer_of_their_own(world: WalletSetup) -> None:
    """From the SDK to the chain: the request is the wallet's, once; another owner's is refused."""
    authenticator = Authenticator(
        SigningPolicy(31337, frozenset({"node.example"})),
        _Clock(),
        _Leases(world.wallet),
        MemoryNonces(time.time, 30),
        stranger_nonces=MemoryNonces(time.time, 30),
        stranger_rate=RateLimiter(1, 1, time.monotonic),
        wallets=world.verifier,
    )

    async def sends(owner: Signer) -> RequestHead:
        async with AsyncPandaceaClient("https://node.example", key=WalletSigner(world.wallet, owner), chain_id=31337) as client:
            headers: dict[str, Any] = await client.sign("GET", "/api/v1/leases/0x12")
        lines = [(name.lower(), value) for name, value in headers.items()]
        return RequestHead("GET", "/api/v1/leases/0x12", [("host", "node.example"), *lines])

    good = await sends(OWNS)
    assert (await authenticator.authenticate(good, _nothing)).address == world.wallet
    for head, code in ((good, "request-replayed"), (await sends(OTHER), "signature-invalid")):
        with pytest.raises(ProtocolError) as caught:
            await authenticator.authenticate(head, _nothing)
        assert caught.value.code == code


async def _nothing(_: SignedRequest) -> bytes:
    """The body of a GET."""
    return b""


class _Clock:
    def now(self) -> float:
        return time.time()


class _Leases:
    def __init__(self, address: str) -> None:
        self._address = address

    def knows_spender(self, address: Address) -> bool:
        return address == self._address
