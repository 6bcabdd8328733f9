"""Close leases whose work is done, so that their price is paid: execute them, and finalize them when the dispute window is over."""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from pandacea.domain.charge import Charge
from pandacea.domain.ids import Address, LeaseId
from pandacea.domain.lease import LeaseStatus
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Unavailable
from pandacea.flows.ports import FinalizedLeases, ResultPoster
from pandacea.flows.settlement.commit_results import Posting, waiting_by_lease
from pandacea.flows.unit_of_work import Database

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class ClosePorts:
    """What leases are closed with."""

    database: Database
    poster: ResultPoster
    chain: FinalizedLeases
    posting: Posting
    earner: Address
    sender: Address
    """The node's key: only the Earner's own may finalize, and only the Earner and its operator execute in time."""
    reasons: dict[LeaseId, str] = field(default_factory=dict)
    """Why the contract did not take the last call, by lease."""


async def close_leases(ports: ClosePorts) -> None:
    """Execute each lease that has a committed result and nothing left to do, and finalize each whose dispute window is over.

    Raises:
        Unavailable: the chain was not read yet, or the database does not answer.
    """
    if ports.posting is Posting.NONE or not ports.chain.takes_results():
        return
    ids = await ports.chain.list_payable()
    if not ids:
        return
    leases, timestamp = await ports.chain.load_leases(ids)
    waiting = await waiting_by_lease(ports.database)
    for lease_id, record in leases.items():
        if record.lease.status is LeaseStatus.EXECUTED and ports.sender == ports.earner:
            await _call("finalizeLease", lease_id, ports)
        elif is_done(record, timestamp) and lease_id not in waiting and not await _has_jobs(record, ports.database):
            await _call("executeLease", lease_id, ports)


def is_done(record: LeaseRecord, timestamp: int) -> bool:
    """Whether an approved lease has results and takes no more computations: all are used, or it expired before the final block."""
    lease = record.lease
    if lease.status is not LeaseStatus.APPROVED or not lease.committed:
        return False
    expired = lease.expires_at is not None and timestamp >= lease.expires_at
    return expired or len(lease.committed) >= lease.max_computations


async def _has_jobs(record: LeaseRecord, database: Database) -> bool:
    async with database.read_session() as session:
        counts = await session.jobs.count_by_charge(record.key)
    return counts.get(Charge.RESERVED, 0) > 0


async def _call(name: str, lease_id: LeaseId, ports: ClosePorts) -> None:
    try:
        await ports.poster.call_lease(name, lease_id)
    except Unavailable as error:
        if ports.reasons.get(lease_id) != error.detail:
            log.info("lease.not_closed", lease_id=lease_id, call=name, reason=error.detail)
        ports.reasons[lease_id] = error.detail
    else:
        ports.reasons.pop(lease_id, None)
