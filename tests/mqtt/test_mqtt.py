"""The node's life over a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest

from pandacea.errors import Unavailable
from pandacea.flows.outbox import deliver_events
from pandacea.flows.unit_of_work import Channel, OutboxMessage
from pandacea.mqtt import MqttPublisher, MqttSettings
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.unit_of_work import SqlDatabase
from tests.fakes import FakeClock
from tests.mqtt.broker import Mosquitto
from tests.prerequisites import free_port

NODE = "0x" + "ea" * 20


@pytest.fixture
async def mosquitto(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    broker = Mosquitto(tmp_path, free_port())
    await broker.start()
    yield broker
    await broker.stop()


def publisher(port: int) -> MqttPublisher:
    return MqttPublisher(MqttSettings("127.0.0.1", port, None, None, tls=False, topic_prefix="pandacea", node_name=NODE))


async def receive_messages(client: aiomqtt.Client, count: int) -> list[tuple[str, dict[str, object]]]:
    messages = []
    async with asyncio.timeout(10):
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            messages.append((str(message.topic).removeprefix(f"pandacea/{NODE}/"), json.loads(message.payload)))
            if len(messages) == count:
                break
    return messages


async def test_a_subscriber_hears_the_node_and_its_end(mosquitto: Mosquitto) -> None:
    """`status` is retained: whoever comes late knows whether the node is there."""
    broker = publisher(mosquitto.port)
    async with aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
        await client.subscribe("pandacea/#", qos=1)
        await broker.publish("computations/completed", {"computation_id": "0x1"})
        await broker.close()
        received = await receive_messages(client, 3)
    assert received == [
        ("status", {"state": "online"}),
        ("computations/completed", {"computation_id": "0x1"}),
        ("status", {"state": "offline"}),
    ]


async def test_a_broker_that_restarts_is_told_that_the_node_is_there(mosquitto: Mosquitto) -> None:
    """It kept nothing, or published the last will: the next sign of life says `online` again, retained."""
    broker = publisher(mosquitto.port)
    await broker.announce_online()
    await mosquitto.stop()
    with pytest.raises(Unavailable):
        await broker.announce_online()
    await mosquitto.start()
    await broker.announce_online()
    async with aiomqtt.Client("127.0.0.1", mosquitto.port) as late:
        await late.subscribe("pandacea/#", qos=1)
        assert await receive_messages(late, 1) == [("status", {"state": "online"})]
    await broker.close()


async def test_hostile_text_is_made_printable(mosquitto: Mosquitto) -> None:
    """Subscribers show messages on dashboards and terminals."""
    broker = publisher(mosquitto.port)
    async with aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
        await client.subscribe(f"pandacea/{NODE}/computations/#", qos=1)
        await broker.publish("computations/failed", {"detail": "a\x1b[2Jb"})
        assert await receive_messages(client, 1) == [("computations/failed", {"detail": r"a\x1b[2Jb"})]
    await broker.close()


async def test_messages_outlive_a_broker_that_is_down(mosquitto: Mosquitto, database: DatabaseEngine) -> None:
    """The outbox keeps what the broker did not take, in order, and hands it over when it is back."""
    books, clock = SqlDatabase(database), FakeClock()
    async with books.unit_of_work() as work:
        for number in range(3):
            await work.outbox.put_message(
                OutboxMessage(Channel.MQTT, f"k{number}", "computations/pending", {"n": number}), clock.now()
            )
        await work.commit()
    broker = publisher(mosquitto.port)
    await mosquitto.stop()
    assert await deliver_events(books, broker, clock) == 0
    await mosquitto.start()
    clock.time += 1000
    async with aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
        await client.subscribe(f"pandacea/{NODE}/computations/#", qos=1)
        assert await deliver_events(books, broker, clock) == 3
        assert [payload["n"] for _, payload in await receive_messages(client, 3)] == [0, 1, 2]
    assert await deliver_events(books, broker, clock) == 0, "delivered messages are not sent again"
    await broker.close()


async def test_a_missing_broker_is_named() -> None:
    """The sentence says which broker does not answer."""
    port = free_port()
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        await publisher(port).publish("status", {})
