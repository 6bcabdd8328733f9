"""Explains why a call is reverted, and why a pool refused a transaction.

No answer here is final: an endpoint may lag behind the chain or lie. What the contract refuses for good, the followed chain shows.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from pandacea.chain.rpc_faults import RpcFault
from pandacea.domain.ids import Address
from pandacea.errors import Unavailable
from pandacea_sdk.protocol.contract import Revert, lease_agreement


class PoolRefusal(StrEnum):
    """What a pool's refusal of a signed transaction means."""

    KNOWN = "known"  # it has it already
    NONCE_USED = "nonce-used"  # a transaction with this nonce is mined
    NO_FUNDS = "no-funds"
    BASE_FEE_ABOVE = "base-fee-above"  # the base fee rose since it was signed
    FEE_TOO_LOW = "fee-too-low"  # below the chain's minimum
    REPLACEMENT_TOO_LOW = "replacement-too-low"  # another one with this nonce pays as much
    OTHER = "other"


_WORDS: Final = (
    (PoolRefusal.KNOWN, ("already known", "already imported", "known transaction", "already exists", "alreadyknown")),
    (PoolRefusal.NONCE_USED, ("nonce too low", "nonce is too low", "oldnonce", "nonce has already been used")),
    (PoolRefusal.NO_FUNDS, ("insufficient funds", "insufficient balance", "sender doesn't have enough funds")),
    (PoolRefusal.REPLACEMENT_TOO_LOW, ("replacement", "could not replace")),
    (PoolRefusal.BASE_FEE_ABOVE, ("less than block base fee", "lower than the block base fee", "base fee exceeds")),
    (PoolRefusal.FEE_TOO_LOW, ("underpriced", "below minimum", "tip cap", "fee too low", "feetoolow", "gas price too low")),
)
"""In this order: `replacement transaction underpriced` is not a fee below the chain's minimum."""


def classify_refusal(detail: str) -> PoolRefusal:
    """Classify the text of a refused `eth_sendRawTransaction`: clients do not agree on codes."""
    text = detail.lower()
    return next((kind for kind, words in _WORDS if any(word in text for word in words)), PoolRefusal.OTHER)


def error_from_revert(fault: RpcFault, sender: Address) -> Unavailable:
    """Build the error of a failed call or gas estimate; the fault itself where the contract gave no reason."""
    revert = revert_of(fault)
    if revert is None:
        return insufficient_funds(sender) if classify_refusal(fault.detail) is PoolRefusal.NO_FUNDS else fault
    return Unavailable(f"The contract refuses now: {revert}", retry_after=60)


def insufficient_funds(sender: Address) -> Unavailable:
    """Build the error of a sender that cannot pay for gas."""
    return Unavailable(f"{sender} has not enough ether to pay for gas. Send it some.", retry_after=30)


def revert_of(fault: RpcFault) -> Revert | None:
    """Decode the custom error in a JSON-RPC error's data: a hex string, or an object that holds one (providers differ)."""
    data = fault.data
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    if not isinstance(data, str) or not data.startswith("0x") or len(data) < 10:
        return None
    try:
        return lease_agreement().decode_revert(bytes.fromhex(data[2:]))
    except ValueError:
        return None
