"""A lease as its events tell it: Solidity's names, one transition table, a pure fold.

The contract enforces the same table; the node only records what the chain shows, so `apply` tolerates histories that our own
contract cannot produce (v0 deployments, odd contracts) and never raises on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeVar, dataclass_transform

from pandacea.domain.ids import ADDRESS, HASH32, Address, BlockNumber, ComputationId, Hash32, LeaseId, LeaseKey, Timestamp, Wei
from pandacea_sdk.protocol import ids

T = TypeVar("T")

DAY: Final = 86_400
"""Seconds."""

NO_EXPIRY: Final = 2**63 - 1
"""An expiry at or beyond it (Unix seconds) is none."""

APPROVAL_PERIOD: Final = 7 * DAY
"""Seconds after creation during which a lease may be approved (both ends included), and only before its expiry."""
COMMIT_GRACE: Final = 1 * DAY
"""Seconds after the expiry during which results may still be committed (both ends included)."""
DISPUTE_WINDOW: Final = 7 * DAY
"""Seconds after execution during which the Spender may still raise a dispute (both ends included)."""
ARBITRATION_PERIOD: Final = 30 * DAY
"""Seconds after a dispute was raised during which its arbiter decides (both ends included); then anyone may split."""
DEFAULT_TERM: Final = 30 * DAY
"""Seconds until the expiry of a lease made with the three-argument `createLease`."""
STAKE_DIVISOR: Final = 10
"""A dispute's stake is `price // STAKE_DIVISOR`, in wei."""


@dataclass_transform(frozen_default=True)
def _event(cls: type[T]) -> type[T]:
    """A frozen dataclass to the type checker: they are made by the hundred thousand, and a truly frozen one takes three times as long."""
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
    """Whether every id and address of an event is one: false only for what an earlier version kept as an endpoint had sent it."""
    return all(form.fullmatch(str(getattr(event, name))) for name, form in _FORMS.items() if hasattr(event, name))


LeaseStatus = ids.LeaseStatus

FINAL_STATUSES: Final = frozenset({LeaseStatus.FINALIZED, LeaseStatus.CANCELLED, LeaseStatus.REFUNDED, LeaseStatus.SETTLED})


class LeaseTransition(StrEnum):
    """What can happen to a lease; `DisputeResolved` is two moves, for it ends in two places."""

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
"""The whole law of where a lease may go. What is not here, the contract reverts (`WrongStatus`)."""

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
    """One lease and the block in which each fact about it first appeared. Facts are only ever added; a reorg refolds."""

    key: LeaseKey
    spender: Address
    earner: Address
    price: Wei
    created_block: BlockNumber
    status: LeaseStatus = LeaseStatus.CREATED
    data_product_id: Hash32 | None = None
    """keccak256 of the product id; None until told: v0 keeps it in storage only."""
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

    def approved_by(self, block: BlockNumber) -> bool:
        """Whether the approval stands in `block` or before it: a grant counts only at the configured confidence."""
        return self.approved_block is not None and self.approved_block <= block


def next_status(status: LeaseStatus, move: LeaseTransition) -> LeaseStatus:
    """Where `move` leads from `status`: by the table, else (our contract cannot produce it) never back to an earlier status."""
    if status in FINAL_STATUSES:
        return status
    target = LEASE_TRANSITIONS.get((status, move))
    return target if target is not None else max(status, _USUAL[move], key=_RANK.__getitem__)


def apply_event(lease: Lease | None, event: LeaseEvent, key: LeaseKey, block: BlockNumber) -> Lease | None:
    """Fold one event, seen in `block`, into `lease`. Total, pure and idempotent: the same range twice changes nothing.

    `None` in means "not seen yet", and `None` out means the event belongs to a lease whose creation was not seen.
    """
    if lease is None:
        return Lease(key, event.spender, event.earner, event.price, block) if isinstance(event, LeaseCreated) else None
    match event:
        case LeaseCreated():
            return lease
        case LeaseTerms():
            return _with_terms(lease, event)
        case ResultCommitted():
            committed = lease.committed | {event.computation_id}
            return replace(lease, status=next_status(lease.status, LeaseTransition.COMMIT), committed=committed)
        case DisputeResolved():
            return _resolved(lease, event, block)
    move, fact = _FACTS[type(event)]
    known = getattr(lease, fact)
    seen: dict[str, Any] = {fact: block if known is None else known}
    return replace(lease, status=next_status(lease.status, move), **seen)


_FACTS: Final[Mapping[type[LeaseEvent], tuple[LeaseTransition, str]]] = MappingProxyType(
    {
        LeaseApproved: (LeaseTransition.APPROVE, "approved_block"),
        LeaseExecuted: (LeaseTransition.EXECUTE, "executed_block"),
        LeaseCancelled: (LeaseTransition.CANCEL, "cancelled_block"),
        LeaseFinalized: (LeaseTransition.FINALIZE, "finalized_block"),
        DisputeRaised: (LeaseTransition.DISPUTE, "disputed_block"),
    }
)
"""The events that are one move and one fact: the block that first showed it."""


def _with_terms(lease: Lease, event: LeaseTerms) -> Lease:
    if lease.data_product_id is not None:
        return lease
    return replace(
        lease,
        data_product_id=event.data_product_id,
        expires_at=event.expires_at,
        max_computations=event.max_computations,
    )


def _resolved(lease: Lease, event: DisputeResolved, block: BlockNumber) -> Lease:
    if lease.resolved_block is not None:
        return lease
    move = LeaseTransition.RESOLVE_VALID if event.is_dispute_valid else LeaseTransition.RESOLVE_INVALID
    return replace(
        lease,
        status=next_status(lease.status, move),
        resolved_block=block,
        resolved_for_spender=event.is_dispute_valid,
    )
