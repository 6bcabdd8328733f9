"""Commit result hashes on-chain: send what is due in batches, and call it delivered when the followed chain shows it for good.

Neither success nor refusal is taken from an endpoint's answer: a message ends when the chain that the node follows, up to the block at
which approvals count, shows the commitment, or shows that the contract cannot take it any more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import structlog

from pandacea.domain.ids import ComputationId, Hash32, LeaseId
from pandacea.domain.lease import FINAL_STATUSES, NO_EXPIRY
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Unavailable
from pandacea.flows.messages import commitment_event
from pandacea.flows.ports import Clock, Commitment, FinalizedLeases, ResultPoster
from pandacea.flows.unit_of_work import Channel, Database, OutboxEntry

log = structlog.get_logger(__name__)

COMMIT_GRACE_SECONDS: Final = 86_400
"""The contract takes results until so long after the lease's expiry."""
SENT_SECONDS: Final = 30.0
"""When a message that is on its way is looked at again."""
MAX_BACKOFF_SECONDS: Final = 300.0
MAX_WAITING: Final = 1_000
"""Messages that one step looks at."""
COMMITTED: Final = "committed"
ON_ITS_WAY: Final = "sent; it counts as delivered once its block is final"


class Posting(StrEnum):
    """Which results are committed on-chain."""

    NONE = "none"
    PRICED = "priced"  # of leases with a price
    ALL = "all"


@dataclass(slots=True)
class CommitPorts:
    """What commitments are delivered with."""

    database: Database
    poster: ResultPoster
    chain: FinalizedLeases
    clock: Clock
    posting: Posting = Posting.PRICED
    seen_block: int = -1
    """The final block against which every waiting message was held."""


async def deliver_commitments(ports: CommitPorts) -> int:
    """End what the chain shows as decided, and send what is due; return how many messages ended.

    Raises:
        Unavailable: the chain was not read yet, or the database does not answer.
    """
    now = ports.clock.now()
    block = ports.chain.confident_block()
    async with ports.database.read_session() as session:
        waiting = await session.outbox.fetch_due(Channel.CHAIN, math.inf, MAX_WAITING)
        due = {entry.id for entry in await session.outbox.fetch_due(Channel.CHAIN, now, MAX_WAITING)}
    if not waiting or (not due and block == ports.seen_block):
        return 0
    leases, timestamp = await ports.chain.load_leases(sorted({commitment_of(entry).lease_id for entry in waiting}))
    ends = {
        entry.id: end
        for entry in waiting
        if (end := find_end(commitment_of(entry), leases, timestamp) or _find_exemption(commitment_of(entry), leases, ports))
    }
    if ends:
        await _record_ends([entry for entry in waiting if entry.id in ends], ends, ports)
    ports.seen_block = block
    await _send([entry for entry in waiting if entry.id in due and entry.id not in ends], ports)
    return len(ends)


async def _record_ends(entries: Sequence[OutboxEntry], ends: Mapping[int, str], ports: CommitPorts) -> None:
    async with ports.database.unit_of_work() as work:
        for entry in entries:
            await work.outbox.mark_delivered(entry.id, ports.clock.now(), ends[entry.id])
            if ends[entry.id] == COMMITTED:
                await work.outbox.put_event(commitment_event(*commitment_of(entry)), ports.clock.now())
        await work.commit()
    for entry in entries:
        if ends[entry.id].startswith("refused"):
            one = commitment_of(entry)
            log.error(
                "settlement.refused_for_good", lease_id=one.lease_id, computation_id=one.computation_id, reason=ends[entry.id]
            )


async def _send(entries: Sequence[OutboxEntry], ports: CommitPorts) -> None:
    if not entries or ports.posting is Posting.NONE:
        return
    answers: Mapping[Commitment, str | None]
    try:
        answers = await ports.poster.commit_results([commitment_of(entry) for entry in entries])
    except Unavailable as error:
        answers = {commitment_of(entry): error.detail for entry in entries}
    now = ports.clock.now()
    async with ports.database.unit_of_work() as work:
        for entry in entries:
            reason = answers.get(commitment_of(entry))
            if reason is None:
                await work.outbox.retry_message(entry.id, now + SENT_SECONDS, ON_ITS_WAY)
            else:
                pause = min(2.0 ** min(entry.attempts, 16), MAX_BACKOFF_SECONDS)
                await work.outbox.retry_message(entry.id, now + pause, reason)
        await work.commit()


def _find_exemption(one: Commitment, leases: Mapping[LeaseId, LeaseRecord], ports: CommitPorts) -> str | None:
    """Return why a result is not to be committed at all; None: it is, or the operator may still ask for it."""
    if not ports.chain.takes_results():
        return "not committed: this version of the contract has no place for results"
    record = leases.get(one.lease_id)
    if ports.posting is Posting.PRICED and record is not None and record.price == 0:
        return "not committed: the lease has no price"
    return None


def commitment_of(entry: OutboxEntry) -> Commitment:
    """Read which commitment an outbox message is."""
    named = entry.message.payload
    return Commitment(LeaseId(named["lease_id"]), ComputationId(named["computation_id"]), Hash32(named["result_hash"]))


def find_end(one: Commitment, leases: Mapping[LeaseId, LeaseRecord], timestamp: int) -> str | None:
    """Return how a commitment ended for good, as the final part of the chain shows it; None: it has not.

    `timestamp`: of the newest final block, in Unix seconds.
    """
    record = leases.get(one.lease_id)
    if record is None:
        return None
    lease = record.lease
    if one.computation_id in lease.committed:
        return COMMITTED
    if lease.status in FINAL_STATUSES:
        return f"refused: the lease is {lease.status.value} on-chain"
    if len(lease.committed) >= lease.max_computations:
        return f"refused: {len(lease.committed)} results are committed, all that the lease takes"
    if lease.expires_at is not None and lease.expires_at < NO_EXPIRY and timestamp > lease.expires_at + COMMIT_GRACE_SECONDS:
        return f"refused: the lease expired at {lease.expires_at}, more than a day before the newest final block"
    return None


async def waiting_by_lease(database: Database) -> dict[LeaseId, list[OutboxEntry]]:
    """Return the commitments that are not delivered, by their lease."""
    async with database.read_session() as session:
        entries = await session.outbox.fetch_due(Channel.CHAIN, math.inf, MAX_WAITING)
    found: dict[LeaseId, list[OutboxEntry]] = {}
    for entry in entries:
        found.setdefault(commitment_of(entry).lease_id, []).append(entry)
    return found
