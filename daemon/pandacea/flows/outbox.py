"""Deliver the outbox: fetch what is due, hand it over, mark it; a message that fails waits with back-off.

On an ordered channel the back-off is the channel's: no message overtakes the one that failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from pandacea.errors import Refused, Unavailable
from pandacea.flows.ports import Clock, MessageBroker
from pandacea.flows.unit_of_work import Channel, Database, OutboxMessage

MAX_BACKOFF_SECONDS: Final = 300.0
MAX_ORDERED_BACKOFF_SECONDS: Final = 30.0
"""Shorter than `MAX_BACKOFF_SECONDS`: on an ordered channel everything waits for its first message, so a broker that is back is tried
soon."""
KEEP_DELIVERED_SECONDS: Final = 86_400.0
"""How long a delivered message stays for inspection, in seconds."""
KEEP_WAITING_SECONDS: Final = 7 * 86_400.0
"""How long an MQTT message waits for a broker that is down, in seconds: older ones are dropped. Commitments wait without limit."""


async def deliver_events(database: Database, broker: MessageBroker, clock: Clock) -> int:
    """Publish every event that is due over MQTT; returns how many the broker took."""

    async def send(message: OutboxMessage) -> None:
        await broker.publish(message.topic, message.payload)

    return await deliver_due(Channel.MQTT, send, database, clock)


async def deliver_due(
    channel: Channel, send: Callable[[OutboxMessage], Awaitable[str | None]], database: Database, clock: Clock
) -> int:
    """Deliver what is due on a channel; returns how many messages are done. Stops at the first that cannot be delivered now.

    `send` returns what to note of the delivery. It raises `Refused` for a message that will never be taken (noted, not repeated),
    `Unavailable` for one to repeat later.
    """
    async with database.read_session() as session:
        due = await session.outbox.fetch_due(channel, clock.now())
    done = 0
    for entry in due:
        try:
            note = await send(entry.message)
        except Refused as problem:
            note = f"refused: {problem}"
        except Unavailable as problem:
            longest = MAX_ORDERED_BACKOFF_SECONDS if channel.is_ordered else MAX_BACKOFF_SECONDS
            pause = min(2.0 ** min(entry.attempts, 16), longest)
            async with database.unit_of_work() as work:
                await work.outbox.retry_message(entry.id, clock.now() + pause, str(problem))
                await work.commit()
            return done
        async with database.unit_of_work() as work:
            await work.outbox.mark_delivered(entry.id, clock.now(), note)
            await work.commit()
        done += 1
    return done
