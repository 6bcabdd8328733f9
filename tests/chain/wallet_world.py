"""A chain with a contract wallet on it, and a node's part that asks it about signatures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum

from pandacea.chain.endpoints import Endpoints
from pandacea.chain.rpc import Endpoint
from pandacea.chain.spender_keys import SpenderKind
from pandacea.chain.wallets import ContractWallets
from pandacea.domain.access import ChainStanding
from pandacea.domain.ids import Address, BlockNumber, Hash32, Timestamp
from pandacea_sdk.protocol.hashing import KeySigner, Signer
from tests.chain.anvil import OWNER, ROOT, Agreement, Anvil, call, word

OWNS, OTHER = KeySigner("61" * 32), KeySigner("62" * 32)
DIGEST = b"\x5a" * 32
ARTIFACT = json.loads((ROOT / "contracts/test/artifacts/Wallet.json").read_text())


class Mood(IntEnum):
    """How `contracts/test/solidity/Wallet.sol` answers."""

    HONEST = 0
    REFUSE = 1
    REVERT = 2
    BURN = 3
    FLOOD = 4
    LONG = 5
    SHORT = 6
    DIRTY = 7


class Known:
    """What a node knows of its Spenders: every one a contract, unless told."""

    def __init__(self) -> None:
        self.creators: dict[Address, Address | None] = {}
        self.kinds: dict[Address, SpenderKind] = {}

    def kind(self, address: Address) -> SpenderKind:
        return self.kinds.get(address, SpenderKind.CONTRACT)


class World:
    """A chain with one wallet on it, and a node that asks: an endpoint of its operator's choice for the wallet named, or two."""

    def __init__(self, agreement: Agreement, code_hash: Hash32, wallet: Address, *more: str, named: bool) -> None:
        """`more`: URLs of other operators' endpoints; `named`: the operator says that it is a wallet."""
        self.chain: Anvil = agreement.chain
        self.wallet = wallet
        urls = (self.chain.url, *more)
        self.endpoints = Endpoints(
            [Endpoint(url, operator=f"operator {place}") for place, url in enumerate(urls)],
            chain_id=31337,
            contract=Address(agreement.address),
            code_hash=code_hash,
        )
        self.distrust: str | None = None
        self.confident = 0
        self.known = Known()
        self.now = 0.0
        self.asked = ContractWallets(
            self.endpoints, self.standing, lambda: self.known, frozenset({wallet} if named else ()), lambda: self.now
        )

    @property
    def calls(self) -> int:
        """Made to endpoints about signatures."""
        return sum(endpoint.calls for endpoint in self.asked._own)

    def standing(self) -> ChainStanding:
        return ChainStanding(BlockNumber(0), Timestamp(0), BlockNumber(self.confident), self.distrust)

    async def behaves(self, mood: Mood) -> None:
        """From the next block on."""
        await self.chain.send(OWNER, self.wallet, call("behave(uint8)", mood))

    async def settles(self) -> None:
        """All that was mined counts."""
        self.confident = await self.chain.head()

    async def accepts(self, signer: Signer = OWNS, address: Address | None = None) -> bool:
        self.asked._refused.clear()  # the same is asked again after the wallet changed its mind; no request is signed twice
        self.now += 60
        return await self.asked.accepts(address or self.wallet, DIGEST, signer.sign_digest(DIGEST))


@asynccontextmanager
async def world_of(agreement: Agreement, *more: str, named: bool = True) -> AsyncIterator[World]:
    receipt = await agreement.chain.send(OWNER, None, ARTIFACT["bytecode"] + word(OWNS.address))
    made = World(agreement, await agreement.code_hash(), Address(receipt["contractAddress"].lower()), *more, named=named)
    await made.endpoints.verify_all()
    await made.settles()
    yield made
    await made.asked.close()
    await made.endpoints.close()
