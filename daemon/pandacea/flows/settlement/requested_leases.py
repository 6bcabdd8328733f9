"""The leases that wait for the Earner: who pays how much for what, and until when it can be approved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pandacea.domain.chain_view import ChainView
from pandacea.domain.ids import Address, Hash32, LeaseId
from pandacea.domain.lease import LeaseStatus
from pandacea.flows.following.chain_store import ChainStore
from pandacea.flows.following.follow import fold_events

APPROVE_SECONDS: Final = 7 * 86_400
"""The contract takes an approval until so long after the lease's creation."""


@dataclass(frozen=True, slots=True)
class RequestedLease:
    """A lease that nobody approved or cancelled yet; times in Unix seconds."""

    lease_id: LeaseId
    spender: Address
    data_product_id: Hash32 | None
    price_wei: int
    max_computations: int
    expires_at: int | None
    decide_until: int
    """The last second of an approval; the true one is at most this, where the block of the creation is not held any more."""


async def list_requested(store: ChainStore, view: ChainView, now: float) -> Sequence[RequestedLease]:
    """List the leases that can still be approved, the most urgent first; `now` in Unix seconds.

    Raises:
        Unavailable: the database does not answer.
    """
    ids = await store.list_waiting()
    if not ids:
        return []
    settled, events = await store.load_rows_and_events(ids)
    found = []
    for lease_id, record in fold_events(settled, events, store, 0).items():
        lease = record.lease
        if lease.status is not LeaseStatus.CREATED or lease.approved_block is not None:
            continue
        block = view.block_at(lease.created_block)
        until = (block.timestamp if block is not None else record.seen_at or int(now)) + APPROVE_SECONDS
        if lease.expires_at is not None:
            until = min(until, lease.expires_at - 1)
        if until >= now:
            found.append(
                RequestedLease(
                    lease_id, lease.spender, lease.data_product_id, lease.price, lease.max_computations, lease.expires_at, until
                )
            )
    return sorted(found, key=lambda one: (one.decide_until, one.lease_id))
