"""A completed computation's hash goes on-chain, from the outbox row its transaction wrote."""

from __future__ import annotations

from pandacea.domain.ids import ComputationId, Hash32, LeaseId
from pandacea.flows.outbox import deliver_due
from pandacea.flows.ports import Clock, ResultPoster
from pandacea.flows.unit_of_work import Channel, Database, OutboxMessage


async def deliver_commitments(database: Database, poster: ResultPoster, clock: Clock) -> int:
    """Commit every result that is due; returns how many are on-chain now."""

    async def send(message: OutboxMessage) -> str:
        named = message.payload
        return await poster.commit_result(
            LeaseId(named["lease_id"]), ComputationId(named["computation_id"]), Hash32(named["result_hash"])
        )

    return await deliver_due(Channel.CHAIN, send, database, clock)
