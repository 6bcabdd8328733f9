"""The node's life goes out over MQTT, from the outbox rows that each change wrote."""

from __future__ import annotations

from pandacea.flows.books import Books, Channel, Message
from pandacea.flows.deliver import deliver
from pandacea.flows.ports import Broker, Clock


async def announce(books: Books, broker: Broker, clock: Clock) -> int:
    """Publish every message that is due; returns how many the broker took."""

    async def send(message: Message) -> None:
        await broker.publish(message.topic, message.payload)

    return await deliver(Channel.MQTT, send, books, clock)
