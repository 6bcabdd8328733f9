"""One skeleton for both outbox journeys: take what is due, hand it over, say so; a failure waits with back-off.

On an ordered channel the pause is the channel's: nothing overtakes the message that failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from pandacea.errors import Refused, Unavailable
from pandacea.flows.ports import Clock
from pandacea.flows.unit_of_work import Channel, Database, OutboxMessage

MAX_BACKOFF_SECONDS: Final = 300.0
"""Seconds."""
MAX_ORDERED_BACKOFF_SECONDS: Final = 30.0
"""Seconds; on an ordered channel everything waits for its first message, so a broker that is back is tried soon."""


async def deliver_due(
    channel: Channel, send: Callable[[OutboxMessage], Awaitable[str | None]], database: Database, clock: Clock
) -> int:
    """Deliver what is due on a channel; returns how many messages are done. Stops at the first that cannot be delivered now.

    `send` returns what to note of the delivery. It raises `Refused` for a message that will never be taken (noted, not repeated),
    `Unavailable` for one to repeat later.
    """
    async with database.read_session() as view:
        due = await view.outbox.fetch_due(channel, clock.now())
    done = 0
    for waiting in due:
        try:
            note = await send(waiting.message)
        except Refused as problem:
            note = f"refused: {problem}"
        except Unavailable as problem:
            pause = min(
                2.0 ** min(waiting.attempts, 16), MAX_ORDERED_BACKOFF_SECONDS if channel.is_ordered else MAX_BACKOFF_SECONDS
            )
            async with database.unit_of_work() as work:
                await work.outbox.retry_message(waiting.id, clock.now() + pause, str(problem))
                await work.commit()
            return done
        async with database.unit_of_work() as work:
            await work.outbox.mark_delivered(waiting.id, clock.now(), note)
            await work.commit()
        done += 1
    return done
