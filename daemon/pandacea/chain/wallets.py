"""Signatures of accounts that are contracts (ERC-1271): the account itself is asked, of several endpoints, at two blocks.

The account is code that its owner chose, so a call is bounded in gas, bytes and time; and an endpoint could lie, so one that says no
decides. Implements `api.auth.ContractWallets`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final

import structlog

from pandacea.chain.endpoints import Endpoints
from pandacea.chain.faults import Fault, RpcFault
from pandacea.chain.rpc import Endpoint
from pandacea.domain.access import ChainStanding
from pandacea.domain.ids import Address
from pandacea.errors import Unavailable

log = structlog.get_logger(__name__)

SELECTOR: Final = "1626ba7e"
"""isValidSignature(bytes32,bytes); as bytes4 it is also the answer that means yes."""
YES: Final = bytes.fromhex(SELECTOR) + bytes(28)
NO: Final = bytes(32)
GAS: Final = 1_000_000
"""Of one call: a passkey checked in Solidity takes a third of it."""
ANSWER_BYTES: Final = 16_384
"""Of one JSON-RPC answer; an honest one has a hundred."""
SECONDS: Final = 5.0
"""For one call."""
AT_ONCE: Final = 8
"""Signatures being asked about."""
ENDPOINTS: Final = 2
"""Asked about each signature, where so many are configured."""
PLAIN_SECONDS: Final = 60.0
"""For which an address without code is not asked again: whoever names a plain key and signs with another costs nothing more."""
MAX_PLAIN: Final = 4096

_OUT_OF_GAS: Final = re.compile(r"out ?of ?gas|oog|vm execution error|gas (?:required|limit)|intrinsic gas", re.IGNORECASE)


class ContractWallets:
    """Asks contract accounts whether a signature is theirs."""

    def __init__(
        self, followed: Endpoints, standing: Callable[[], ChainStanding], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`followed`: endpoints whose chain is checked by whoever follows them; connections of its own are opened to their URLs."""
        self._followed = followed.all[:ENDPOINTS]
        self._own = tuple(Endpoint(endpoint.url, timeout=SECONDS, most=ANSWER_BYTES) for endpoint in self._followed)
        self._standing = standing
        self._monotonic = monotonic
        self._plain: dict[Address, float] = {}
        self._under_way = 0

    async def accepts(self, address: Address, digest: bytes, signature: bytes) -> bool:
        """Whether the contract at `address` accepts the signature at the newest block and at the last that counts.

        False for an address without code, for one that reverts, burns its gas or answers anything but the one word.

        Raises:
            Unavailable: an endpoint cannot be asked or believed now, or too many signatures are being asked about.
        """
        if self._plain.get(address, 0.0) > self._monotonic():
            return False
        standing = self._standing()
        if not standing.trusted or not all(endpoint.verified for endpoint in self._followed):
            raise Unavailable("The node cannot ask the chain about a contract wallet now.", retry_after=standing.retry_after)
        if self._under_way >= AT_ONCE:
            raise Unavailable("The node asks about as many contract wallets' signatures as it may; try again.", retry_after=2)
        self._under_way += 1
        try:
            data = _calldata(digest, signature)
            # The newest block alone first: most of what is wrong ends here.
            return await self._all_accept(address, data, "latest") and await self._all_accept(
                address, data, int(standing.confident)
            )
        finally:
            self._under_way -= 1

    async def close(self) -> None:
        """Close the connections."""
        for endpoint in self._own:
            await endpoint.close()

    async def _all_accept(self, address: Address, data: str, block: int | str) -> bool:
        answers = await asyncio.gather(*(_ask(own, address, data, block) for own in self._own), return_exceptions=True)
        if b"" in answers and block == "latest":
            self._remember_plain(address)
        if any(isinstance(answer, bytes) and answer != YES for answer in answers):
            return False  # a no decides, whatever the others say
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return True

    def _remember_plain(self, address: Address) -> None:
        if len(self._plain) >= MAX_PLAIN:
            self._plain.clear()
        self._plain[address] = self._monotonic() + PLAIN_SECONDS


async def _ask(endpoint: Endpoint, address: Address, data: str, block: int | str) -> bytes:
    """The answer; that of an account without code is empty, one that is the account's own failure reads as a no."""
    try:
        return await endpoint.eth_call(address, data, block, gas=GAS)
    except RpcFault as fault:
        if _is_the_wallets(fault):
            return NO
        log.warning("chain.wallet-not-asked", endpoint=fault.endpoint, kind=fault.kind, detail=fault.detail)
        raise Unavailable("The chain cannot be asked about a contract wallet now; try again.") from fault


def _is_the_wallets(fault: RpcFault) -> bool:
    """Whether the account brought this about, not the endpoint: it reverted, ran out of gas, or answered too much."""
    out_of_gas = fault.kind is Fault.ERROR and _OUT_OF_GAS.search(fault.reason) is not None
    too_much = fault.kind is Fault.RANGE and fault.rpc_code == 0
    return fault.reverted or out_of_gas or too_much


def _calldata(digest: bytes, signature: bytes) -> str:
    padded = signature + bytes(-len(signature) % 32)
    return "0x" + SELECTOR + digest.hex() + f"{64:064x}{len(signature):064x}" + padded.hex()
