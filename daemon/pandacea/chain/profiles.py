"""What is known of a chain beforehand: used for defaults and messages, never to believe anything about a lease."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pandacea.chain.confidence import Confidence, ConfidenceKind


class FeeStyle(StrEnum):
    """How a chain charges for a transaction."""

    EIP1559 = "eip-1559"
    EIP1559_L1_DATA = "eip-1559 and a fee for the data on L1"
    """The L1 fee is not in the gas estimate (OP stack)."""
    EIP1559_L1_GAS = "eip-1559, the data on L1 counted as gas"
    """Gas estimates include it and move with L1's fees (Arbitrum)."""
    EIP1559_MINIMUM_TIP = "eip-1559 with a minimum tip"
    FREE = "free"


@dataclass(frozen=True, slots=True)
class ChainProfile:
    """One chain, or for an unknown id the careful middle. Times in seconds."""

    name: str
    block_seconds: float
    """Usual time between two blocks; 0: it mines on demand."""
    has_tags: bool
    """Whether its endpoints answer for the tags `safe` and `finalized`."""
    finality_seconds: float
    """Usual time until a block is `finalized`."""
    confirmations: int
    """What `blockchain.confidence: {confirmations: N}` should be where an endpoint does not know the tags."""
    fee_style: FeeStyle
    native_coin: str
    log_range_blocks: int
    """Blocks that its public endpoints allow in one eth_getLogs, at least: where a first request starts."""


UNKNOWN: Final = ChainProfile("unknown", 12.0, True, 900.0, 64, FeeStyle.EIP1559, "native coin", 1_000)
PROFILES: Final[dict[int, ChainProfile]] = {
    1: ChainProfile("Ethereum", 12.0, True, 900.0, 64, FeeStyle.EIP1559, "ETH", 1_000),
    11155111: ChainProfile("Sepolia", 12.0, True, 900.0, 64, FeeStyle.EIP1559, "ETH", 1_000),
    8453: ChainProfile("Base", 2.0, True, 1_200.0, 600, FeeStyle.EIP1559_L1_DATA, "ETH", 1_000),
    10: ChainProfile("OP Mainnet", 2.0, True, 1_200.0, 600, FeeStyle.EIP1559_L1_DATA, "ETH", 1_000),
    42161: ChainProfile("Arbitrum One", 0.25, True, 1_200.0, 4_800, FeeStyle.EIP1559_L1_GAS, "ETH", 1_000),
    137: ChainProfile("Polygon PoS", 2.0, True, 10.0, 256, FeeStyle.EIP1559_MINIMUM_TIP, "POL", 1_000),
    100: ChainProfile("Gnosis", 5.0, True, 160.0, 64, FeeStyle.EIP1559, "xDAI", 1_000),
    31337: ChainProfile("local", 0.0, True, 0.0, 0, FeeStyle.FREE, "ether", 10_000),
}
"""Chain id -> profile. How each figure was tried, or that it was not, is in docs/chain-follower.md."""


def profile_of(chain_id: int) -> ChainProfile:
    """Return a chain's profile; `UNKNOWN` for one that has none."""
    return PROFILES.get(chain_id, UNKNOWN)


def describe_missing_tags(confidence: Confidence, chain_id: int, *, has_safe: bool, has_finalized: bool) -> str | None:
    """Return what to configure where approvals would never count, for want of the tag that the confidence waits for; None: they will."""
    match confidence.kind:
        case ConfidenceKind.CONFIRMATIONS:
            return None
        case ConfidenceKind.SAFE if has_safe or has_finalized:
            return None
        case ConfidenceKind.FINALIZED if has_finalized:
            return None
    number = max(1, profile_of(chain_id).confirmations)
    return (
        f"the chain shows no `{confidence.kind}` block, so no approval ever counts with blockchain.confidence: {confidence.kind}. "
        f"Set blockchain.confidence: {{confirmations: {number}}} and start the node again"
    )
