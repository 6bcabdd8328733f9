"""A lease as its events tell it: Solidity's names, one transition table, a pure fold.

The contract enforces the same table; the node only records what the chain shows, so `apply` tolerates histories that our own
contract cannot produce (v0 deployments, odd contracts) and never raises on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pandacea.domain.ids import Address, ComputationId, Hash32, LeaseId, Timestamp, Wei


@dataclass(frozen=True, slots=True)
class LeaseCreated:
    lease_id: LeaseId
    spender: Address
    earner: Address
    price: Wei


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    lease_id: LeaseId
    data_product_id: Hash32
    expires_at: Timestamp
    max_computations: int


@dataclass(frozen=True, slots=True)
class LeaseApproved:
    lease_id: LeaseId


@dataclass(frozen=True, slots=True)
class ResultCommitted:
    lease_id: LeaseId
    computation_id: ComputationId
    result_hash: Hash32


@dataclass(frozen=True, slots=True)
class LeaseExecuted:
    lease_id: LeaseId


@dataclass(frozen=True, slots=True)
class LeaseCancelled:
    lease_id: LeaseId


@dataclass(frozen=True, slots=True)
class LeaseFinalized:
    lease_id: LeaseId
    earner: Address
    reputation_reward: int


@dataclass(frozen=True, slots=True)
class DisputeRaised:
    lease_id: LeaseId
    spender: Address
    earner: Address
    reason: str
    stake_amount: Wei


@dataclass(frozen=True, slots=True)
class DisputeResolved:
    lease_id: LeaseId
    is_dispute_valid: bool
    stake_amount: Wei


LeaseEvent = (
    LeaseCreated
    | LeaseTerms
    | LeaseApproved
    | ResultCommitted
    | LeaseExecuted
    | LeaseCancelled
    | LeaseFinalized
    | DisputeRaised
    | DisputeResolved
)


class LeaseStatus(StrEnum):
    """Where a lease stands on-chain. The last four are final: their money is credited and they never change again."""

    CREATED = "created"
    APPROVED = "approved"
    EXECUTED = "executed"
    DISPUTED = "disputed"
    FINALIZED = "finalized"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"  # a dispute found valid
    SETTLED = "settled"  # a dispute that ended otherwise


FINAL: Final = frozenset({LeaseStatus.FINALIZED, LeaseStatus.CANCELLED, LeaseStatus.REFUNDED, LeaseStatus.SETTLED})
