"""What the node's transactions pay: fees that follow the chain, and caps on them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import median
from typing import Final

import msgspec

from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.rpc_messages import BaseFee
from pandacea.errors import Unavailable
from pandacea.flows.following.chain_store import SentTransaction
from pandacea_sdk.protocol.ids import HEX_QUANTITY

DAY_SECONDS: Final = 86_400.0
"""Seconds of the period that the daily cap covers."""
HISTORY_BLOCKS: Final = 10
"""Blocks whose tips are looked at."""
MAX_TIP_WEI: Final = 50 * 10**9
"""Per gas; a higher suggestion is not followed unless the pool names it as its minimum, or the base fee is higher."""
FALLBACK_TIP_WEI: Final = 10**9
"""Per gas, at most, where the last blocks show no tip."""
REPLACEMENT: Final = (9, 8)
"""A replacement pays at least 9/8 of the fee that it replaces, as a fraction; Ethereum nodes require a tenth more."""

_ABSENT: Final = frozenset({FaultKind.ERROR, FaultKind.UNSUPPORTED, FaultKind.NULL, FaultKind.MALFORMED, FaultKind.RANGE})
"""Faults by which an endpoint says that it does not have a method."""
_MINIMUM: Final = re.compile(r"minimum (?:needed|required|is|:)?\s*:?\s*(\d{1,20})", re.IGNORECASE)


class FeeHistory(msgspec.Struct, rename="camel"):
    """The answer of `eth_feeHistory`: the base fees of some blocks and of the next one, and the tips that were paid in them."""

    base_fee_per_gas: list[str] = []
    reward: list[list[str]] | None = None


@dataclass(frozen=True, slots=True)
class FeeQuote:
    """What a transaction should offer now, in wei per gas."""

    max_fee: int
    tip: int
    """Equal to `max_fee` where the chain has no EIP-1559."""
    dynamic: bool
    """Whether the chain has EIP-1559 (type 2); else transactions are of type 0."""

    def over(self, replaced: SentTransaction) -> FeeQuote:
        """Return this quote, raised far enough that a pool takes it in place of `replaced`."""
        up, down = REPLACEMENT
        tip = max(self.tip, replaced.priority_fee * up // down + 1)
        fee = max(self.max_fee, replaced.max_fee * up // down + 1, tip)
        return replace(self, max_fee=fee, tip=tip if self.dynamic else fee)


def parse_wei(endpoint: Endpoint, text: str, method: str) -> int:
    """Parse an amount of wei, which may be larger than any number of blocks or gas; a malformed one is a fault."""
    if HEX_QUANTITY.fullmatch(text) is None or len(text) > 66:
        raise endpoint.inconsistent_fault(method, f"{text[:40]!r} is not an amount")
    return int(text, 16)


def minimum_tip_of(message: str) -> int | None:
    """Read the tip that a pool demands from its refusal, in wei per gas; None: it names none.

    Polygon's: `transaction gas price below minimum: gas tip cap 1000000000, minimum needed 25000000000`.
    """
    found = _MINIMUM.search(message)
    return None if found is None else int(found[1])


async def quote_fees(endpoint: Endpoint, *, minimum_tip: int = 0) -> FeeQuote:
    """Ask what the chain takes now; `minimum_tip`: what its pool demanded before, in wei per gas.

    Raises:
        RpcFault: the endpoint does not tell.
    """
    head = await endpoint.call_method("eth_getBlockByNumber", ["latest", False], BaseFee)
    if head.base_fee_per_gas is None:
        price = parse_wei(endpoint, await endpoint.call_method("eth_gasPrice", [], str), "eth_gasPrice")
        price = max(price, minimum_tip)
        return FeeQuote(price, price, dynamic=False)
    base = parse_wei(endpoint, head.base_fee_per_gas, "eth_getBlockByNumber")
    history = await _fee_history(endpoint)
    if history.base_fee_per_gas:
        base = max(base, parse_wei(endpoint, history.base_fee_per_gas[-1], "eth_feeHistory"))
    paid = [parse_wei(endpoint, one[0], "eth_feeHistory") for one in history.reward or [] if one]
    paid = [one for one in paid if one]
    tip = int(median(paid)) if paid else min(await _suggested_tip(endpoint), FALLBACK_TIP_WEI)
    tip = max(min(tip, max(MAX_TIP_WEI, base)), minimum_tip)
    return FeeQuote(2 * base + tip, tip, dynamic=True)


async def _fee_history(endpoint: Endpoint) -> FeeHistory:
    try:
        return await endpoint.call_method("eth_feeHistory", [hex(HISTORY_BLOCKS), "latest", [50]], FeeHistory)
    except RpcFault as fault:
        if fault.kind not in _ABSENT:
            raise
        return FeeHistory()


async def _suggested_tip(endpoint: Endpoint) -> int:
    try:
        said = await endpoint.call_method("eth_maxPriorityFeePerGas", [], str)
    except RpcFault as fault:
        if fault.kind not in _ABSENT:
            raise
        return FALLBACK_TIP_WEI
    return parse_wei(endpoint, said, "eth_maxPriorityFeePerGas")


@dataclass(frozen=True, slots=True)
class FeeLimits:
    """Caps and waits of the node's transactions."""

    max_wei_per_transaction: int = 10**16
    """Wei that one transaction may cost at most (gas limit x fee): 0.01 of the chain's coin."""
    max_wei_per_day: int = 10**17
    """Wei that all transactions signed within 24 hours may cost at most: 0.1 of the chain's coin."""
    max_gas: int = 10_000_000
    """Gas limit of one transaction at most: twenty commitments take 0.6 million, and Arbitrum adds its price of the parent chain."""
    replace_after_seconds: float = 60.0
    """After which a transaction that is not mined is replaced by one with the fee of then."""
    resend_seconds: float = 15.0
    """After which a transaction that is not mined is sent again unchanged: an endpoint may have dropped it."""

    def check_transaction(self, cost: int) -> None:
        """Check what one transaction may cost, in wei.

        Raises:
            Unavailable: it exceeds the cap; the message names both and the setting.
        """
        if cost > self.max_wei_per_transaction:
            raise Unavailable(
                f"One transaction would cost up to {cost} wei; the cap is {self.max_wei_per_transaction}. "
                "Wait for lower fees or raise settlement.max_fee_eth_per_transaction.",
                retry_after=60,
            )

    def check_day(self, nonce: int, cost: int, recent: Iterable[SentTransaction]) -> None:
        """Check a transaction that may cost `cost` wei against the daily cap; `recent`: what was signed in the last 24 hours.

        Raises:
            Unavailable: it exceeds the cap; the message names both and the setting.
        """
        spent: dict[int, int] = {nonce: cost}
        for row in recent:
            # Attempts with one nonce replace each other: at most the most expensive is paid.
            if row.state != "lost":
                spent[row.nonce] = max(spent.get(row.nonce, 0), row.max_cost)
        if sum(spent.values()) > self.max_wei_per_day:
            raise Unavailable(
                f"Transactions of the last 24 hours may cost {sum(spent.values())} wei; the cap is {self.max_wei_per_day}. "
                "Wait, or raise settlement.max_fee_eth_per_day.",
                retry_after=600,
            )
