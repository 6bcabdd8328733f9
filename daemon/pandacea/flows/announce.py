"""The node's life goes out over MQTT, from the outbox rows that each change wrote."""

from __future__ import annotations

from pandacea.flows.outbox import deliver_due
from pandacea.flows.ports import Clock, MessageBroker
from pandacea.flows.unit_of_work import Channel, Database, OutboxMessage


async def deliver_events(database: Database, broker: MessageBroker, clock: Clock) -> int:
    """Publish every message that is due; returns how many the broker took."""

    async def send(message: OutboxMessage) -> None:
        await broker.publish(message.topic, message.payload)

    return await deliver_due(Channel.MQTT, send, database, clock)
