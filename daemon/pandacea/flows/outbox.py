"""Deliver the outbox's events: bound what waits, fetch what is due, hand it over, mark it; what fails waits with back-off.

Each channel is delivered for itself, so none waits for another. On an ordered channel the back-off is the channel's: no message overtakes
the one that failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from pandacea.errors import Refused, Unavailable
from pandacea.flows.ports import Clock, MessageBroker, WebhookReceiver
from pandacea.flows.unit_of_work import Channel, Database, OutboxMessage

log = structlog.get_logger(__name__)

MAX_ORDERED_BACKOFF_SECONDS: Final = 30.0
"""On an ordered channel everything waits for its first message, so a broker that is back is tried soon."""
WEBHOOK_BACKOFF_SECONDS: Final = 5.0
"""Before a webhook's message is sent the second time; each further pause is four times as long."""
MAX_WEBHOOK_BACKOFF_SECONDS: Final = 6 * 3600.0
MAX_WEBHOOK_ATTEMPTS: Final = 10
"""Deliveries of one message to a webhook, over about a day; then it is dropped."""
KEEP_DELIVERED_SECONDS: Final = 86_400.0
"""How long a delivered message stays for inspection, in seconds."""
KEEP_WAITING_SECONDS: Final = 7 * 86_400.0
"""How long an event waits for a listener that is down, in seconds: older ones are dropped. Commitments wait without limit."""
MAX_BACKLOG: Final = 10_000
"""Default of `Backlog.max_messages`."""


@dataclass(slots=True)
class Backlog:
    """What waits on one channel, as the last delivery left it: for the metrics."""

    channel: Channel
    max_messages: int = MAX_BACKLOG
    """Beyond it the oldest are dropped: a listener that keeps the last word it heard is right in the end."""
    waiting: int = 0
    oldest_seconds: float = 0.0
    dropped: int = 0
    """Since the node started."""
    trouble: str | None = None
    """Why the last delivery failed; None: it did not."""


async def deliver_events(database: Database, broker: MessageBroker, clock: Clock, backlog: Backlog | None = None) -> int:
    """Publish every event that is due over MQTT; returns how many the broker took."""

    async def send(message: OutboxMessage) -> None:
        await broker.publish(message.topic, message.payload)

    return await _deliver(backlog or Backlog(Channel.MQTT), send, database, clock)


async def deliver_webhooks(database: Database, receiver: WebhookReceiver, clock: Clock, backlog: Backlog | None = None) -> int:
    """Send every event that is due to the webhook; returns how many are done."""

    async def send(message: OutboxMessage) -> None:
        await receiver.send(message.payload, clock.now())

    return await _deliver(backlog or Backlog(Channel.WEBHOOK), send, database, clock)


async def _deliver(backlog: Backlog, send: Callable[[OutboxMessage], Awaitable[None]], database: Database, clock: Clock) -> int:
    """Bound, deliver and measure one channel. Stops at the first message that cannot be delivered now.

    `send` raises `Refused` for a message that will never be taken (dropped), `Unavailable` for one to repeat later.
    """
    await _bound_backlog(backlog, database, clock)
    try:
        return await _deliver_due(backlog, send, database, clock)
    finally:
        await _measure(backlog, database, clock)


async def _deliver_due(backlog: Backlog, send: Callable[[OutboxMessage], Awaitable[None]], database: Database, clock: Clock) -> int:
    channel = backlog.channel
    async with database.read_session() as session:
        due = await session.outbox.fetch_due(channel, clock.now())
    done = 0
    for entry in due:
        note = None
        try:
            await send(entry.message)
        except Refused as problem:
            note = f"refused: {problem.detail}"
        except Unavailable as problem:
            if backlog.trouble is None:
                log.warning("messages.wait", channel=channel.value, reason=problem.detail)
            backlog.trouble = problem.detail
            if channel.is_ordered or entry.attempts + 1 < MAX_WEBHOOK_ATTEMPTS:
                async with database.unit_of_work() as work:
                    await work.outbox.retry_message(entry.id, clock.now() + _pause(channel, entry.attempts), problem.detail)
                    await work.commit()
                return done
            note = f"given up after {MAX_WEBHOOK_ATTEMPTS} attempts: {problem.detail}"
        async with database.unit_of_work() as work:
            await work.outbox.mark_delivered(entry.id, clock.now(), note)
            await work.commit()
        if note is not None:
            _count_dropped(backlog, 1, note)
        elif backlog.trouble is not None:
            log.info("messages.delivered_again", channel=channel.value)
            backlog.trouble = None
        done += 1
    return done


def _pause(channel: Channel, attempts: int) -> float:
    if channel.is_ordered:
        return min(2.0 ** min(attempts, 16), MAX_ORDERED_BACKOFF_SECONDS)
    return min(WEBHOOK_BACKOFF_SECONDS * 4.0 ** min(attempts, 16), MAX_WEBHOOK_BACKOFF_SECONDS)


async def _bound_backlog(backlog: Backlog, database: Database, clock: Clock) -> None:
    """Drop what waits beyond the bound or too long."""
    before = clock.now() - KEEP_WAITING_SECONDS
    async with database.read_session() as session:
        waiting = await session.outbox.measure_waiting(backlog.channel)
    if waiting.count <= backlog.max_messages and (waiting.oldest_at is None or waiting.oldest_at >= before):
        return
    async with database.unit_of_work() as work:
        gone = await work.outbox.drop_waiting(backlog.channel, backlog.max_messages, before)
        await work.commit()
    if gone:
        _count_dropped(
            backlog, gone, f"more than {backlog.max_messages} waited, or for more than {KEEP_WAITING_SECONDS:.0f} seconds"
        )


def _count_dropped(backlog: Backlog, count: int, reason: str) -> None:
    backlog.dropped += count
    log.warning("messages.dropped", channel=backlog.channel.value, count=count, total=backlog.dropped, reason=reason)


async def _measure(backlog: Backlog, database: Database, clock: Clock) -> None:
    async with database.read_session() as session:
        waiting = await session.outbox.measure_waiting(backlog.channel)
    backlog.waiting = waiting.count
    backlog.oldest_seconds = 0.0 if waiting.oldest_at is None else max(0.0, clock.now() - waiting.oldest_at)
