"""A completed computation's hash goes on-chain, from the outbox row its transaction wrote."""

from __future__ import annotations

from pandacea.domain.ids import ComputationId, Hash32, LeaseId
from pandacea.flows.books import Books, Channel, Message
from pandacea.flows.deliver import deliver
from pandacea.flows.ports import Clock, ResultPoster


async def settle(books: Books, poster: ResultPoster, clock: Clock) -> int:
    """Commit every result that is due; returns how many are on-chain now."""

    async def send(message: Message) -> str:
        named = message.payload
        return await poster.commit_result(
            LeaseId(named["lease_id"]), ComputationId(named["computation_id"]), Hash32(named["result_hash"])
        )

    return await deliver(Channel.CHAIN, send, books, clock)
