"""Verifies signatures of contract accounts (ERC-1271): calls the account, through endpoints of two operators, at two blocks.

Only an endpoint can tell what a contract answers, so here, and nowhere else, an endpoint's answer opens data. Therefore as few accounts
as possible are called: never an EOA, and with endpoints of a single operator only those that the node's operator named. The account is
code that its owner chose, so a call is bounded in gas, bytes and time.

Anybody may send requests in the name of a wallet. A key whose signature the wallet accepted before, or that created its lease, has a
rate of its own that nobody else can use up; everybody else shares one, and a peer whose signatures are rejected has a lower one.

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
"""isValidSignature(bytes32,bytes); as bytes4 it is also the answer that accepts."""
MAGIC_VALUE: Final = bytes.fromhex(IS_VALID_SIGNATURE_SELECTOR) + bytes(28)
"""The whole answer of a wallet that accepts a signature."""
REJECTED_ANSWER: Final = bytes(32)
"""Stands for the answer of a call that the wallet itself made fail."""
CALL_GAS: Final = 1_000_000
"""Gas of one call; a passkey checked in Solidity takes a third of it."""
MAX_WALLET_ANSWER_BYTES: Final = 16_384
"""Of one JSON-RPC answer; an honest one has a hundred bytes."""
CALL_TIMEOUT_SECONDS: Final = 5.0
"""Of one call."""
MAX_CONCURRENT_CHECKS: Final = 8
"""Signatures of known keys that are verified at one time; as many again of others."""
REQUIRED_OPERATORS: Final = 2
"""Operators of whom one endpoint each is called, where so many are configured."""

OWNER_RATE: Final = (10.0, 40.0)
"""Per second, and in a burst: signatures of one wallet by one key that it accepted before."""
STRANGER_RATE: Final = (20.0, 40.0)
"""The same, for all others together, accepted or not."""
FAILURE_RATE: Final = (0.2, 5.0)
"""The same, for rejected signatures of one peer."""
MAX_REMEMBERED: Final = 4_096
"""Entries of each memory (rejected signatures, peers, accepted keys); the oldest are dropped."""

_OUT_OF_GAS: Final = re.compile(r"out ?of ?gas|oog|vm execution error|gas (?:required|limit)|intrinsic gas", re.IGNORECASE)


class AccountKinds(Protocol):
    """What is known of Spenders' accounts; implemented by `chain.spenders.accounts.SpenderAccounts`."""

    creators: dict[Address, Address | None]

    def kind_of(self, address: Address) -> AccountKind: ...


class Erc1271Verifier:
    """Verifies signatures of contract accounts by calling them."""

    def __init__(
        self,
        followed: EndpointPool,
        chain_status: Callable[[], ChainStatus],
        accounts: Callable[[], AccountKinds | None],
        named_wallets: frozenset[Address] = frozenset(),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open connections of its own to the endpoints.

        Args:
            followed: the endpoints; the follower verifies their chain.
            chain_status: returns whether the chain is known now.
            accounts: returns what is known of Spenders; None before the follower started.
            named_wallets: wallets for which the endpoints of one operator suffice, by the node operator's choice.
            monotonic: a clock that never jumps, in seconds.
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
        self._accepted: OrderedDict[Hashable, None] = OrderedDict()
        """(wallet, key) of signatures that the wallet accepted."""
        self._rejected: OrderedDict[Hashable, None] = OrderedDict()
        """(wallet, digest, signature) that the wallet rejected."""
        self._under_way = {True: 0, False: 0}

    async def accepts(self, address: Address, digest: bytes, signature: bytes, peer: str = "") -> bool:
        """Whether the contract at `address` accepts the signature, at the newest block and at the newest that counts.

        False without a call for an EOA and for any account that may not be called; False after a call for an account without code, and
        for one that reverts, runs out of gas or answers anything but the magic value. `peer`: who sent the signature.

        Raises:
            Unavailable: it is not known whether the account may be called, an endpoint does not answer or is not ready, or too many
                signatures are being verified.
            ProtocolError: rate-limited: too many signatures of this peer were rejected, or this key sent too many.
        """
        if not self._may_ask(address):
            return False
        attempt = (address, digest, signature)
        if attempt in self._rejected:
            return False
        status = self._chain_status()
        if not status.is_ready or not all(endpoint.verified for endpoint in self._followed):
            raise Unavailable("The node cannot call a contract wallet now.", retry_after=status.retry_after)
        signer = recover_address(digest, signature)
        known = signer is not None and self._is_known(address, Address(signer))
        self._take_token(address, signer, peer, known=known)
        with self._one_check(known=known):
            data = _calldata(digest, signature)
            # The newest block first: most wrong signatures are rejected here.
            accepted = await self._all_accept(address, data, "latest") and await self._all_accept(
                address, data, int(status.confident_block)
            )
        if accepted and signer is not None:
            _remember(self._accepted, (address, signer))
        elif not accepted:
            _remember(self._rejected, attempt)
            if not known:
                self._failures.take_token(peer)
        return accepted

    async def close(self) -> None:
        """Close the open connections."""
        for endpoint in self._own:
            await endpoint.close()

    def _may_ask(self, address: Address) -> bool:
        accounts = self._accounts()
        kind = AccountKind.UNKNOWN if accounts is None else accounts.kind_of(address)
        if kind is AccountKind.EOA:
            return False
        if address in self._named_wallets:
            return True
        if len(self._own) < REQUIRED_OPERATORS:
            return False
        if kind is AccountKind.UNKNOWN:
            raise Unavailable(f"The node does not know yet whether {address} is a contract wallet. Try again.", retry_after=5)
        return True

    def _is_known(self, address: Address, signer: Address) -> bool:
        """Whether only an owner of the wallet can have signed: the wallet accepted the key before, or the key created its lease."""
        if (address, signer) in self._accepted:
            return True
        accounts = self._accounts()
        return accounts is not None and accounts.creators.get(address) == signer

    def _take_token(self, address: Address, signer: str | None, peer: str, *, known: bool) -> None:
        if known:
            if not self._owners.take_token((address, signer)):
                raise ProtocolError(
                    "rate-limited", f"More than {OWNER_RATE[0]:g} requests a second of one contract wallet; slow down."
                )
        elif not self._failures.has_token(peer):
            raise ProtocolError(
                "rate-limited", "Too many signatures from your address were rejected by contract wallets; try later."
            )
        elif not self._strangers.take_token(None):
            raise Unavailable("The node verifies as many signatures of contract wallets as it can; try again.", retry_after=2)

    @contextmanager
    def _one_check(self, *, known: bool) -> Iterator[None]:
        if self._under_way[known] >= MAX_CONCURRENT_CHECKS:
            raise Unavailable("The node verifies as many signatures of contract wallets as it can; try again.", retry_after=2)
        self._under_way[known] += 1
        try:
            yield
        finally:
            self._under_way[known] -= 1

    async def _all_accept(self, address: Address, data: str, block: int | str) -> bool:
        answers = await asyncio.gather(*(_call_wallet(own, address, data, block) for own in self._own), return_exceptions=True)
        if any(isinstance(answer, bytes) and answer != MAGIC_VALUE for answer in answers):
            return False  # one rejection decides
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return True


class _TokenBuckets:
    """Token buckets, one per key: `burst` at once, then `per_second`. The least recently used are dropped and so are full again."""

    def __init__(self, per_second: float, burst: float, monotonic: Callable[[], float]) -> None:
        self._per_second, self._burst, self._monotonic = per_second, burst, monotonic
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def has_token(self, key: Hashable) -> bool:
        """Whether a token is left; it is not taken."""
        return self._tokens(key) >= 1

    def take_token(self, key: Hashable) -> bool:
        """Take a token; False when none is left."""
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


def _remember(memory: OrderedDict[Hashable, None], entry: Hashable) -> None:
    memory[entry] = None
    memory.move_to_end(entry)
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)


async def _call_wallet(endpoint: Endpoint, address: Address, data: str, block: int | str) -> bytes:
    """Call the account. An account without code answers nothing; a call that the account made fail counts as a rejection."""
    try:
        return await endpoint.eth_call(address, data, block, gas=CALL_GAS)
    except RpcFault as fault:
        if _is_caused_by_wallet(fault):
            return REJECTED_ANSWER
        log.warning("chain.wallet_not_called", endpoint=fault.endpoint, kind=fault.kind, reason=fault.detail)
        raise Unavailable("The contract wallet cannot be called now; try again.") from fault


def _is_caused_by_wallet(fault: RpcFault) -> bool:
    """Whether the account caused the fault, not the endpoint: it reverted, ran out of gas, or answered too many bytes."""
    out_of_gas = fault.kind is FaultKind.ERROR and _OUT_OF_GAS.search(fault.reason) is not None
    too_much = fault.kind is FaultKind.RANGE and fault.rpc_code == 0
    return fault.reverted or out_of_gas or too_much


def _calldata(digest: bytes, signature: bytes) -> str:
    padded = signature + bytes(-len(signature) % 32)
    return "0x" + IS_VALID_SIGNATURE_SELECTOR + digest.hex() + f"{64:064x}{len(signature):064x}" + padded.hex()
