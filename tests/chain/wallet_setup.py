"""A chain with a contract wallet on it, and the node's verifier of its signatures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.rpc import Endpoint
from pandacea.chain.spenders.accounts import AccountKind
from pandacea.chain.spenders.erc1271 import Erc1271Verifier
from pandacea.domain.access import ChainStatus
from pandacea.domain.ids import Address, BlockNumber, Hash32, Timestamp
from pandacea_sdk.protocol.hashing import KeySigner, Signer
from tests.chain.anvil import OWNER, ROOT, Anvil, AnvilAgreement, abi_word, encode_call

OWNS, OTHER = KeySigner("61" * 32), KeySigner("62" * 32)
DIGEST = b"\x5a" * 32
ARTIFACT = json.loads((ROOT / "contracts/test/artifacts/Wallet.json").read_text())


class WalletBehaviour(IntEnum):
    """The answers that `contracts/test/solidity/Wallet.sol` can give."""

    HONEST = 0
    REFUSE = 1
    REVERT = 2
    BURN = 3
    FLOOD = 4
    LONG = 5
    SHORT = 6
    DIRTY = 7


class FakeAccountKinds:
    """What a node knows of its Spenders: each is a contract unless `kinds` says otherwise."""

    def __init__(self) -> None:
        self.creators: dict[Address, Address | None] = {}
        self.kinds: dict[Address, AccountKind] = {}

    def kind_of(self, address: Address) -> AccountKind:
        return self.kinds.get(address, AccountKind.CONTRACT)


class WalletSetup:
    """A chain with one wallet on it, and a verifier with one endpoint, or with several of different operators."""

    def __init__(self, agreement: AnvilAgreement, code_hash: Hash32, wallet: Address, *more: str, named: bool) -> None:
        """`more`: URLs of other operators' endpoints; `named`: whether the node's operator named the wallet."""
        self.chain: Anvil = agreement.chain
        self.wallet = wallet
        urls = (self.chain.url, *more)
        self.endpoints = EndpointPool(
            [Endpoint(url, operator=f"operator {place}") for place, url in enumerate(urls)],
            chain_id=31337,
            contract=Address(agreement.address),
            code_hash=code_hash,
        )
        self.distrust: str | None = None
        self.confident = 0
        self.account_kinds = FakeAccountKinds()
        self.now = 0.0
        self.verifier = Erc1271Verifier(
            self.endpoints, self.chain_status, lambda: self.account_kinds, frozenset({wallet} if named else ()), lambda: self.now
        )

    @property
    def calls(self) -> int:
        """Calls to endpoints about signatures."""
        return sum(endpoint.calls for endpoint in self.verifier._own)

    def chain_status(self) -> ChainStatus:
        return ChainStatus(BlockNumber(0), Timestamp(0), BlockNumber(self.confident), self.distrust)

    async def set_behaviour(self, mood: WalletBehaviour) -> None:
        """Change the wallet's behaviour from the next block on."""
        await self.chain.send_transaction(OWNER, self.wallet, encode_call("behave(uint8)", mood))

    async def confirm_all(self) -> None:
        """Let everything mined so far count."""
        self.confident = await self.chain.head_number()

    async def accepts(self, signer: Signer = OWNS, address: Address | None = None) -> bool:
        self.verifier._rejected.clear()  # the same is asked again after the wallet changed its mind; no request is signed twice
        self.now += 60
        return await self.verifier.accepts(address or self.wallet, DIGEST, signer.sign_digest(DIGEST))


@asynccontextmanager
async def wallet_setup(agreement: AnvilAgreement, *more: str, named: bool = True) -> AsyncIterator[WalletSetup]:
    receipt = await agreement.chain.send_transaction(OWNER, None, ARTIFACT["bytecode"] + abi_word(OWNS.address))
    made = WalletSetup(agreement, await agreement.code_hash(), Address(receipt["contractAddress"].lower()), *more, named=named)
    await made.endpoints.verify_all()
    await made.confirm_all()
    yield made
    await made.verifier.close()
    await made.endpoints.close()
