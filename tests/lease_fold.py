"""The plain fold of lease events, one frozen lease per event: the oracle that `LeaseRecord`, which folds in place, is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from pandacea.domain.ids import BlockNumber, LeaseKey
from pandacea.domain.lease import (
    DisputeRaised,
    DisputeResolved,
    Lease,
    LeaseApproved,
    LeaseCancelled,
    LeaseCreated,
    LeaseEvent,
    LeaseExecuted,
    LeaseFinalized,
    LeaseTerms,
    LeaseTransition,
    ResultCommitted,
    next_status,
)


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
