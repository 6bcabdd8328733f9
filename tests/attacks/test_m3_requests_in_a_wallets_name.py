"""A stranger sends requests in the name of a contract wallet: its owner is locked out, and the node makes RPC calls for the stranger."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from pandacea.chain.spenders.accounts import AccountKind
from pandacea.chain.spenders.erc1271 import FAILURE_RATE, STRANGER_RATE
from pandacea.domain.ids import Address
from pandacea.errors import Unavailable
from pandacea_sdk.protocol.hashing import Signer
from pandacea_sdk.protocol.problems import ProtocolError
from tests.chain.anvil import AnvilAgreement
from tests.chain.wallet_setup import OTHER, OWNS, WalletSetup, wallet_setup

OWNERS_PEER, STRANGERS_PEER = "198.51.100.1", "203.0.113.9"


@pytest.fixture
async def world(agreement: AnvilAgreement) -> AsyncIterator[WalletSetup]:
    async with wallet_setup(agreement) as made:
        yield made


async def send(world: WalletSetup, signer: Signer = OWNS, peer: str = OWNERS_PEER) -> bool:
    """A request of its own each time: nobody signs the same twice."""
    digest = os.urandom(32)
    return await world.verifier.accepts(world.wallet, digest, signer.sign_digest(digest), peer)


async def forge(world: WalletSetup, peer: str, times: int) -> set[str]:
    """What a stranger hears."""
    heard = set()
    for _ in range(times):
        try:
            assert not await world.verifier.accepts(world.wallet, os.urandom(32), os.urandom(65), peer)
        except (ProtocolError, Unavailable) as refusal:
            heard.add(refusal.code)
    return heard


async def test_an_owner_is_served_beside_a_stranger_at_once_and_afterwards(world: WalletSetup) -> None:
    """The first request of an owner whom the node never saw, and twenty more, while a stranger sends five for each of them."""
    for _ in range(20):
        await forge(world, STRANGERS_PEER, 5)
        assert await send(world)
        world.now += 0.2


async def test_a_stranger_pays_with_calls_of_their_own(world: WalletSetup) -> None:
    """A peer whose signatures no wallet takes is soon not asked about any more: some calls in all, not one for each request."""
    assert "rate-limited" in await forge(world, STRANGERS_PEER, 100)
    assert world.calls <= FAILURE_RATE[1]


async def test_many_strangers_do_not_use_up_the_owners_calls(world: WalletSetup) -> None:
    """From a thousand addresses at once: the owner's key was taken once, and what it signs costs nothing that they can take."""
    assert await send(world)
    before = world.calls
    for number in range(1000):
        await forge(world, f"2001:db8::{number:x}", 1)
    assert world.calls - before <= STRANGER_RATE[1]
    assert await send(world)


async def test_the_key_that_created_the_lease_is_known_from_the_start(world: WalletSetup) -> None:
    """Nobody else can sign with it, so it need not have been taken before."""
    world.account_kinds.creators[world.wallet] = Address(OWNS.address.lower())
    for number in range(1000):
        await forge(world, f"2001:db8::{number:x}", 1)
    assert await send(world)


async def test_the_same_forgery_is_asked_about_once(world: WalletSetup) -> None:
    """Repeated, it is refused from memory."""
    digest = os.urandom(32)
    signature = OTHER.sign_digest(digest)
    for _ in range(20):
        assert not await world.verifier.accepts(world.wallet, digest, signature, STRANGERS_PEER)
    assert world.calls == 1


async def test_who_names_a_plain_key_causes_no_call(world: WalletSetup) -> None:
    """Nor who names anybody whom the node's operator did not, where there is one operator's endpoint."""
    plain = Address("0x" + "ab" * 20)
    for kind in (AccountKind.EOA, AccountKind.UNKNOWN, AccountKind.CONTRACT):
        world.account_kinds.kinds[plain] = kind
        assert not await world.verifier.accepts(plain, os.urandom(32), os.urandom(65), STRANGERS_PEER)
    assert world.calls == 0
