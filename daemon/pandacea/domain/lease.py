"""A lease: its events by Solidity's names, its statuses, and one table of transitions.

The contract enforces the same table. The node records what the chain shows, so `next_status` also answers for histories that our own
contract cannot produce (v0 deployments, odd contracts).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeVar, dataclass_transform

from pandacea.domain.ids import ADDRESS, HASH32, Address, BlockNumber, ComputationId, Hash32, LeaseId, LeaseKey, Timestamp, Wei
from pandacea_sdk.protocol import ids

T = TypeVar("T")

NO_EXPIRY: Final = 2**63 - 1
"""Unix seconds: an expiry at or beyond it means that the lease does not expire."""


@dataclass_transform(frozen_default=True)
def _event(cls: type[T]) -> type[T]:
    """Make a dataclass that only the type checker sees as frozen: a frozen one takes three times as long, a hundred thousand times."""
    return dataclass(slots=True, unsafe_hash=True)(cls)


@_event
class LeaseCreated:
    lease_id: LeaseId
    spender: Address
    earner: Address
    price: Wei


@_event
class LeaseTerms:
    lease_id: LeaseId
    data_product_id: Hash32
    expires_at: Timestamp
    max_computations: int


@_event
class LeaseApproved:
    lease_id: LeaseId


@_event
class ResultCommitted:
    lease_id: LeaseId
    computation_id: ComputationId
    result_hash: Hash32


@_event
class LeaseExecuted:
    lease_id: LeaseId


@_event
class LeaseCancelled:
    lease_id: LeaseId


@_event
class LeaseFinalized:
    lease_id: LeaseId
    earner: Address
    reputation_reward: int


@_event
class DisputeRaised:
    lease_id: LeaseId
    spender: Address
    earner: Address
    reason: str
    stake_amount: Wei


@_event
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


_FORMS: Final = {
    "lease_id": HASH32,
    "data_product_id": HASH32,
    "computation_id": HASH32,
    "result_hash": HASH32,
    "spender": ADDRESS,
    "earner": ADDRESS,
}


def is_well_formed(event: LeaseEvent) -> bool:
    """Return whether every id and address of an event has its form: false only for what an earlier version stored unchecked."""
    return all(form.fullmatch(str(getattr(event, name))) for name, form in _FORMS.items() if hasattr(event, name))


LeaseStatus = ids.LeaseStatus

FINAL_STATUSES: Final = frozenset({LeaseStatus.FINALIZED, LeaseStatus.CANCELLED, LeaseStatus.REFUNDED, LeaseStatus.SETTLED})


class LeaseTransition(StrEnum):
    """What can happen to a lease; `DisputeResolved` is two transitions, for it leads to two statuses."""

    APPROVE = "approve"
    COMMIT = "commit"
    EXECUTE = "execute"
    CANCEL = "cancel"
    FINALIZE = "finalize"
    DISPUTE = "dispute"
    RESOLVE_VALID = "resolve-valid"
    RESOLVE_INVALID = "resolve-invalid"


LEASE_TRANSITIONS: Final[Mapping[tuple[LeaseStatus, LeaseTransition], LeaseStatus]] = MappingProxyType(
    {
        (LeaseStatus.CREATED, LeaseTransition.APPROVE): LeaseStatus.APPROVED,
        (LeaseStatus.CREATED, LeaseTransition.CANCEL): LeaseStatus.CANCELLED,
        (LeaseStatus.APPROVED, LeaseTransition.COMMIT): LeaseStatus.APPROVED,
        (LeaseStatus.APPROVED, LeaseTransition.EXECUTE): LeaseStatus.EXECUTED,
        (LeaseStatus.APPROVED, LeaseTransition.CANCEL): LeaseStatus.CANCELLED,
        (LeaseStatus.APPROVED, LeaseTransition.DISPUTE): LeaseStatus.DISPUTED,
        # Without a dispute raised before: two receipts that contradict each other need no arbiter.
        (LeaseStatus.APPROVED, LeaseTransition.RESOLVE_VALID): LeaseStatus.REFUNDED,
        # A result still running when the lease was executed may be committed; it moves no money.
        (LeaseStatus.EXECUTED, LeaseTransition.COMMIT): LeaseStatus.EXECUTED,
        (LeaseStatus.EXECUTED, LeaseTransition.CANCEL): LeaseStatus.CANCELLED,
        (LeaseStatus.EXECUTED, LeaseTransition.DISPUTE): LeaseStatus.DISPUTED,
        (LeaseStatus.EXECUTED, LeaseTransition.FINALIZE): LeaseStatus.FINALIZED,
        (LeaseStatus.EXECUTED, LeaseTransition.RESOLVE_VALID): LeaseStatus.REFUNDED,
        # A Spender cannot stop a commitment by disputing first, and cancel later because nothing was committed.
        (LeaseStatus.DISPUTED, LeaseTransition.COMMIT): LeaseStatus.DISPUTED,
        (LeaseStatus.DISPUTED, LeaseTransition.CANCEL): LeaseStatus.CANCELLED,
        (LeaseStatus.DISPUTED, LeaseTransition.RESOLVE_VALID): LeaseStatus.REFUNDED,
        (LeaseStatus.DISPUTED, LeaseTransition.RESOLVE_INVALID): LeaseStatus.SETTLED,
    }
)
"""Every transition of a lease. The contract reverts any other (`WrongStatus`)."""

_USUAL: Final[Mapping[LeaseTransition, LeaseStatus]] = MappingProxyType(
    {
        LeaseTransition.APPROVE: LeaseStatus.APPROVED,
        LeaseTransition.COMMIT: LeaseStatus.CREATED,
        LeaseTransition.EXECUTE: LeaseStatus.EXECUTED,
        LeaseTransition.CANCEL: LeaseStatus.CANCELLED,
        LeaseTransition.FINALIZE: LeaseStatus.FINALIZED,
        LeaseTransition.DISPUTE: LeaseStatus.DISPUTED,
        LeaseTransition.RESOLVE_VALID: LeaseStatus.REFUNDED,
        LeaseTransition.RESOLVE_INVALID: LeaseStatus.SETTLED,
    }
)
_RANK: Final = {status: rank for rank, status in enumerate(LeaseStatus)}


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease, and the block in which each fact about it first appeared. Facts are only added; after a reorg it is folded anew."""

    key: LeaseKey
    spender: Address
    earner: Address
    price: Wei
    created_block: BlockNumber
    status: LeaseStatus = LeaseStatus.CREATED
    data_product_id: Hash32 | None = None
    """keccak256 of the product id; None until an event states it: v0 keeps it in storage only."""
    expires_at: Timestamp | None = None
    """None: no expiry (v0)."""
    max_computations: int = 1
    committed: frozenset[ComputationId] = frozenset()
    approved_block: BlockNumber | None = None
    executed_block: BlockNumber | None = None
    cancelled_block: BlockNumber | None = None
    finalized_block: BlockNumber | None = None
    disputed_block: BlockNumber | None = None
    resolved_block: BlockNumber | None = None
    resolved_for_spender: bool | None = None

    @property
    def committed_count(self) -> int:
        """How many computations have a result on-chain."""
        return len(self.committed)

    @property
    def in_dispute(self) -> bool:
        """Whether a dispute is open."""
        return self.disputed_block is not None and self.resolved_block is None and self.status not in FINAL_STATUSES


def next_status(status: LeaseStatus, transition: LeaseTransition) -> LeaseStatus:
    """Return the status after `transition`: by the table, else (our contract cannot produce it) never an earlier status."""
    if status in FINAL_STATUSES:
        return status
    target = LEASE_TRANSITIONS.get((status, transition))
    return target if target is not None else max(status, _USUAL[transition], key=_RANK.__getitem__)
