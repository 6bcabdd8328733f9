"""Approve requested leases by the operator's policy, where that is switched on; what no rule approves waits for the operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from pandacea.domain.auto_approval import ApprovalPolicy, ApprovalQuestion, ApprovalRule, decide_approval
from pandacea.domain.chain_view import ChainView
from pandacea.domain.ids import Address, LeaseId
from pandacea.errors import Unavailable
from pandacea.flows.following.chain_store import ChainStore, SentTransaction, SentTransactionStore
from pandacea.flows.messages import auto_approval_event
from pandacea.flows.ports import Catalogue, Clock
from pandacea.flows.settlement.requested_leases import RequestedLease, list_requested
from pandacea.flows.unit_of_work import Database

log = structlog.get_logger(__name__)

DAY_SECONDS: Final = 86_400.0
APPROVE: Final = "approveLease"
"""The call; a transaction's purpose is `approveLease:<lease>`, and `:<rule>` where no person approved."""


class LeaseApprover(Protocol):
    """Sends approvals with the node's key."""

    address: Address

    async def call_lease(self, name: str, lease_id: LeaseId, note: str = "") -> None: ...

    async def fetch_fee(self) -> int: ...


@dataclass(slots=True)
class ApprovePorts:
    """What leases are approved with."""

    database: Database
    read_chain: Callable[[], tuple[ChainStore, ChainView]]
    """Returns the rows and the view of the followed chain, or raises Unavailable."""
    sent: SentTransactionStore
    approver: LeaseApprover
    catalogue: Catalogue
    clock: Clock
    policy: ApprovalPolicy
    reasons: dict[LeaseId, str] = field(default_factory=dict)
    """Why a lease waits for the operator, as it was logged last."""


async def approve_requested(ports: ApprovePorts) -> None:
    """Decide on each requested lease once, and send the approvals that the policy gives.

    Raises:
        Unavailable: the chain was not read yet, no endpoint tells its fees, or the database does not answer.
    """
    store, view = ports.read_chain()
    now = ports.clock.now()
    waiting = await list_requested(store, view, now)
    ports.reasons = {
        lease_id: reason for lease_id, reason in ports.reasons.items() if lease_id in {one.lease_id for one in waiting}
    }
    if not waiting:
        return
    spender_of = await _list_recent(store, ports, now)
    fee = await ports.approver.fetch_fee()
    for one in waiting:
        if one.lease_id in spender_of:
            continue  # on its way
        decision = decide_approval(_question(one, list(spender_of.values()), fee, ports), ports.policy)
        reason = decision.reason
        if decision.rule is not None:
            try:
                await ports.approver.call_lease(APPROVE, one.lease_id, decision.rule)
            except Unavailable as error:
                reason = error.detail
            else:
                spender_of[one.lease_id] = one.spender
                await _tell(one, decision.rule, reason, ports)
                continue
        if ports.reasons.get(one.lease_id) != reason:
            log.info("lease.not_auto_approved", lease_id=one.lease_id, spender=one.spender, reason=reason)
        ports.reasons[one.lease_id] = reason


def _question(one: RequestedLease, approved: Sequence[Address], fee: int, ports: ApprovePorts) -> ApprovalQuestion:
    product = None if one.data_product_id is None else ports.catalogue.find_by_hash(one.data_product_id)
    return ApprovalQuestion(
        one.spender,
        None if product is None else product.price,
        one.price_wei,
        one.max_computations,
        one.expires_at,
        ports.clock.now(),
        fee,
        sum(spender == one.spender for spender in approved),
        len(approved),
    )


async def _list_recent(store: ChainStore, ports: ApprovePorts, now: float) -> dict[LeaseId, Address]:
    """Return the leases whose approval was sent within a day, with their Spenders: read from what was signed, so a restart forgets none."""
    rows = await ports.sent.list_since(store.chain_id, ports.approver.address, now - DAY_SECONDS)
    ids = sorted({lease_id for row in rows if row.state != "lost" and (lease_id := approved_lease(row)) is not None})
    settled, events = await store.load_rows_and_events(ids)
    found = {lease_id: record.spender for lease_id, record in settled.items()}
    for seen in events:
        spender = getattr(seen.event, "spender", None)
        if spender is not None:
            found.setdefault(seen.event.lease_id, spender)
    return {lease_id: found.get(lease_id, Address("")) for lease_id in ids}


async def _tell(one: RequestedLease, rule: ApprovalRule, reason: str, ports: ApprovePorts) -> None:
    log.info("lease.auto_approved", lease_id=one.lease_id, spender=one.spender, rule=rule.value, reason=reason)
    async with ports.database.unit_of_work() as work:
        await work.outbox.put_event(auto_approval_event(one.lease_id, rule.value), ports.clock.now())
        await work.commit()


def approved_lease(row: SentTransaction) -> LeaseId | None:
    """Return the lease that a transaction approves; None: it is another call."""
    call, lease_id, *_ = [*row.purpose.split(":"), ""]
    return LeaseId(lease_id) if call == APPROVE else None


def rule_of(row: SentTransaction) -> str | None:
    """Return the rule by which a transaction approved its lease; None: a person did, or it is another call."""
    parts = row.purpose.split(":")
    return parts[2] if len(parts) == 3 and parts[0] == APPROVE else None
