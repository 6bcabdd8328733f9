"""From the contract's events to those the node folds, as its decoder hands them over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pandacea.domain.ids import Address, ComputationId, Hash32, LeaseId, Timestamp, Wei
from pandacea.domain.lease import (
    DisputeRaised,
    DisputeResolved,
    LeaseApproved,
    LeaseCancelled,
    LeaseCreated,
    LeaseEvent,
    LeaseExecuted,
    LeaseFinalized,
    LeaseTerms,
    ResultCommitted,
)
from pandacea_sdk.protocol.contract import Event

Values = Mapping[str, Any]

READ: Final[Mapping[str, Callable[[LeaseId, Values], LeaseEvent]]] = {
    "LeaseCreated": lambda lease, v: LeaseCreated(lease, Address(v["spender"]), Address(v["earner"]), Wei(v["price"])),
    "LeaseTerms": lambda lease, v: LeaseTerms(lease, Hash32(v["dataProductId"]), Timestamp(v["expiresAt"]), v["maxComputations"]),
    "LeaseApproved": lambda lease, _: LeaseApproved(lease),
    "ResultCommitted": lambda lease, v: ResultCommitted(lease, ComputationId(v["computationId"]), Hash32(v["resultHash"])),
    "LeaseExecuted": lambda lease, _: LeaseExecuted(lease),
    "LeaseCancelled": lambda lease, _: LeaseCancelled(lease),
    "LeaseFinalized": lambda lease, v: LeaseFinalized(lease, Address(v["earner"]), v["reputationReward"]),
    "DisputeRaised": lambda lease, v: DisputeRaised(
        lease, Address(v["spender"]), Address(v["earner"]), v["reason"], Wei(v["stakeAmount"])
    ),
    "DisputeResolved": lambda lease, v: DisputeResolved(lease, v["isDisputeValid"], Wei(v["stakeAmount"])),
}


def as_lease_event(event: Event) -> LeaseEvent | None:
    """None for what is about accounts, or only explains another event."""
    read = READ.get(event.name)
    return None if read is None else read(LeaseId(event.values["leaseId"]), event.values)
