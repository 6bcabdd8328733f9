"""Signatures of accounts that are contracts (ERC-1271): the account itself is asked, of endpoints of two operators, at two blocks.

Only an endpoint can tell what a contract answers, so its word opens data here and nowhere else. Therefore it is asked for as few
accounts as possible: never for one whose key is known to be plain, and with endpoints of a single operator only for those that the
node's operator named. The account is code that its owner chose, so a call is bounded in gas, bytes and time.

Anybody may send requests in the name of a wallet. Whoever signs with a key that the wallet took before, or that created its lease, has
calls to themselves, which nobody else can use up; everybody else shares some, and those of one peer end when they fail.

Implements `api.auth.ContractSignatures`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import structlog

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.spenders.accounts import AccountKind
from pandacea.domain.access import ChainStatus
from pandacea.domain.ids import Address
from pandacea.errors import Unavailable
from pandacea_sdk.protocol.hashing import recover_address
from pandacea_sdk.protocol.problems import ProtocolError

log = structlog.get_logger(__name__)

IS_VALID_SIGNATURE_SELECTOR: Final = "1626ba7e"
"""isValidSignature(bytes32,bytes); as bytes4 it is also the answer that means yes."""
MAGIC_VALUE: Final = bytes.fromhex(IS_VALID_SIGNATURE_SELECTOR) + bytes(28)
REJECTED_ANSWER: Final = bytes(32)
CALL_GAS: Final = 1_000_000
"""Of one call: a passkey checked in Solidity takes a third of it."""
MAX_WALLET_ANSWER_BYTES: Final = 16_384
"""Of one JSON-RPC answer; an honest one has a hundred."""
CALL_TIMEOUT_SECONDS: Final = 5.0
"""For one call."""
MAX_CONCURRENT_CHECKS: Final = 8
"""Signatures being asked about, of known keys; as many again of others."""
REQUIRED_OPERATORS: Final = 2
"""Of so many operators one endpoint each is asked, where so many are configured."""

OWNER_RATE: Final = (10.0, 40.0)
"""A second, and at once: signatures of one wallet by one key it took before."""
STRANGER_RATE: Final = (20.0, 40.0)
"""Of all others together, whatever comes of them."""
FAILURE_RATE: Final = (0.2, 5.0)
"""Of one peer: signatures that no wallet took."""
MAX_REMEMBERED: Final = 4_096
"""Refused signatures, peers, and keys that were taken, each: the oldest are forgotten."""

_OUT_OF_GAS: Final = re.compile(r"out ?of ?gas|oog|vm execution error|gas (?:required|limit)|intrinsic gas", re.IGNORECASE)


class AccountKinds(Protocol):
    """What is known of Spenders' addresses: `chain.spender_keys.SpenderAccounts`."""

    creators: dict[Address, Address | None]

    def kind_of(self, address: Address) -> AccountKind: ...


class Erc1271Verifier:
    """Asks contract accounts whether a signature is theirs."""

    def __init__(
        self,
        followed: EndpointPool,
        chain_status: Callable[[], ChainStatus],
        accounts: Callable[[], AccountKinds | None],
        named_wallets: frozenset[Address] = frozenset(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`followed`: endpoints whose chain is checked by whoever follows them; connections of its own are opened to their URLs.

        `keys`: what is known of Spenders, None before the chain was looked at; `named`: wallets for which the operator takes the word of
        one operator's endpoint.
        """
        self._followed = followed.one_per_operator()[:REQUIRED_OPERATORS]
        self._own = tuple(
            Endpoint(endpoint.url, timeout=CALL_TIMEOUT_SECONDS, max_bytes=MAX_WALLET_ANSWER_BYTES) for endpoint in self._followed
        )
        self._chain_status = chain_status
        self._accounts = accounts
        self._named_wallets = named_wallets
        self._owners = _TokenBuckets(*OWNER_RATE, monotonic)
        self._strangers = _TokenBuckets(*STRANGER_RATE, monotonic)
        self._failures = _TokenBuckets(*FAILURE_RATE, monotonic)
        self._taken: OrderedDict[Hashable, None] = OrderedDict()
        """(wallet, key) that it took a signature of."""
        self._refused: OrderedDict[Hashable, None] = OrderedDict()
        """(wallet, digest, signature) that it did not take."""
        self._under_way = {True: 0, False: 0}

    async def accepts(self, address: Address, digest: bytes, signature: bytes, peer: str = "") -> bool:
        """Whether the contract at `address` accepts the signature at the newest block and at the last that counts.

        False, without a call, for a plain key, and for any account that may not be asked; after one, for an account without code, and for
        one that reverts, burns its gas or answers anything but the one word. `peer`: who sent it.

        Raises:
            Unavailable: it is not known whether the account may be asked, an endpoint cannot be asked or believed now, or too many
                signatures are being asked about.
            ProtocolError: rate-limited: of this peer too many were refused, or of this key too many were sent.
        """
        if not self._may_ask(address):
            return False
        attempt = (address, digest, signature)
        if attempt in self._refused:
            return False
        standing = self._chain_status()
        if not standing.is_ready or not all(endpoint.verified for endpoint in self._followed):
            raise Unavailable("The node cannot ask the chain about a contract wallet now.", retry_after=standing.retry_after)
        signer = recover_address(digest, signature)
        known = signer is not None and self._is_known(address, Address(signer))
        self._take(address, signer, peer, known=known)
        with self._one_more(known=known):
            data = _calldata(digest, signature)
            # The newest block alone first: most of what is wrong ends here.
            accepted = await self._all_accept(address, data, "latest") and await self._all_accept(
                address, data, int(standing.confident_block)
            )
        if accepted and signer is not None:
            _remember(self._taken, (address, signer))
        elif not accepted:
            _remember(self._refused, attempt)
            if not known:
                self._failures.take_token(peer)
        return accepted

    async def close(self) -> None:
        """Close the connections."""
        for endpoint in self._own:
            await endpoint.close()

    def _may_ask(self, address: Address) -> bool:
        keys = self._accounts()
        kind = AccountKind.UNKNOWN if keys is None else keys.kind_of(address)
        if kind is AccountKind.EOA:
            return False
        if address in self._named_wallets:
            return True
        if len(self._own) < REQUIRED_OPERATORS:
            return False
        if kind is AccountKind.UNKNOWN:
            raise Unavailable(f"The node has not looked yet whether {address} is a contract wallet. Try again.", retry_after=5)
        return True

    def _is_known(self, address: Address, signer: Address) -> bool:
        """Whether nobody but an owner of the wallet can have made the signature: the key was taken before, or created its lease."""
        if (address, signer) in self._taken:
            return True
        keys = self._accounts()
        return keys is not None and keys.creators.get(address) == signer

    def _take(self, address: Address, signer: str | None, peer: str, *, known: bool) -> None:
        if known:
            if not self._owners.take_token((address, signer)):
                raise ProtocolError(
                    "rate-limited", f"More than {OWNER_RATE[0]:g} requests a second of one contract wallet; slow down."
                )
        elif not self._failures.has_token(peer):
            raise ProtocolError(
                "rate-limited", "Too many signatures that no contract wallet took came from your address; try later."
            )
        elif not self._strangers.take_token(None):
            raise Unavailable("The node asks about as many contract wallets' signatures as it may; try again.", retry_after=2)

    @contextmanager
    def _one_more(self, *, known: bool) -> Iterator[None]:
        if self._under_way[known] >= MAX_CONCURRENT_CHECKS:
            raise Unavailable("The node asks about as many contract wallets' signatures as it may; try again.", retry_after=2)
        self._under_way[known] += 1
        try:
            yield
        finally:
            self._under_way[known] -= 1

    async def _all_accept(self, address: Address, data: str, block: int | str) -> bool:
        answers = await asyncio.gather(*(_ask(own, address, data, block) for own in self._own), return_exceptions=True)
        if any(isinstance(answer, bytes) and answer != MAGIC_VALUE for answer in answers):
            return False  # a no decides, whatever the others say
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return True


class _TokenBuckets:
    """Token buckets, one a key: `burst` at once, then `per_second`; the least recently used are forgotten, and so are full again."""

    def __init__(self, per_second: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._per_second, self._burst, self._monotonic = per_second, burst, monotonic
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def has_token(self, key: Hashable) -> bool:
        """Whether a token is there; none is taken."""
        return self._tokens(key) >= 1

    def take_token(self, key: Hashable) -> bool:
        """Take a token; False where none is there."""
        tokens = self._tokens(key)
        granted = tokens >= 1
        self._buckets[key] = (tokens - 1 if granted else tokens, self._monotonic())
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_REMEMBERED:
            self._buckets.popitem(last=False)
        return granted

    def _tokens(self, key: Hashable) -> float:
        now = self._monotonic()
        tokens, seen = self._buckets.get(key, (self._burst, now))
        return min(self._burst, tokens + (now - seen) * self._per_second)


def _remember(memory: OrderedDict[Hashable, None], what: Hashable) -> None:
    memory[what] = None
    memory.move_to_end(what)
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)


async def _ask(endpoint: Endpoint, address: Address, data: str, block: int | str) -> bytes:
    """The answer; that of an account without code is empty, one that is the account's own failure reads as a no."""
    try:
        return await endpoint.eth_call(address, data, block, gas=CALL_GAS)
    except RpcFault as fault:
        if _is_the_wallets(fault):
            return REJECTED_ANSWER
        log.warning("chain.wallet-not-asked", endpoint=fault.endpoint, kind=fault.kind, detail=fault.detail)
        raise Unavailable("The chain cannot be asked about a contract wallet now; try again.") from fault


def _is_the_wallets(fault: RpcFault) -> bool:
    """Whether the account brought this about, not the endpoint: it reverted, ran out of gas, or answered too much."""
    out_of_gas = fault.kind is FaultKind.ERROR and _OUT_OF_GAS.search(fault.reason) is not None
    too_much = fault.kind is FaultKind.RANGE and fault.rpc_code == 0
    return fault.reverted or out_of_gas or too_much


def _calldata(digest: bytes, signature: bytes) -> str:
    padded = signature + bytes(-len(signature) % 32)
    return "0x" + IS_VALID_SIGNATURE_SELECTOR + digest.hex() + f"{64:064x}{len(signature):064x}" + padded.hex()
