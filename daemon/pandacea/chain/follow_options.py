"""What a follower follows, and how quickly."""

from __future__ import annotations

from dataclasses import dataclass, field

from pandacea.chain.confidence import DEFAULT_CONFIDENCE, Confidence
from pandacea.chain.rereading.parts import RereadOptions
from pandacea.chain.source import SETTLE_EVERY_BLOCKS
from pandacea.domain.ids import Address


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """What to follow, and how. Intervals and ages in seconds."""

    contract: Address
    earner: Address
    chain_id: int
    approvers: frozenset[Address] = frozenset()
    """Addresses besides the Earner whose signature approves: this node's operator key."""
    deploy_block: int | None = None
    """None: found by asking for the contract's code at earlier blocks."""
    confidence: Confidence = DEFAULT_CONFIDENCE
    poll_interval: float = 1.0
    max_head_age: float = 300.0
    max_silence: float = 60.0
    settle_every: int = SETTLE_EVERY_BLOCKS
    cross_check_interval: float = 15.0
    reread: RereadOptions = field(default_factory=RereadOptions)
    contract_wallets: frozenset[Address] = frozenset()
    """Spenders that the operator named as contract wallets."""
    ws_url: str | None = None
    """A WebSocket endpoint whose notifications wake the follower."""
    announce: bool = False
    """Whether life-cycle messages go into the outbox (somebody listens)."""
