"""The node's life over a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiomqtt
import pytest

from pandacea.errors import Unavailable
from pandacea.flows.outbox import Backlog, deliver_events
from pandacea.flows.unit_of_work import Channel
from pandacea.mqtt import MqttPublisher, MqttSettings
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.unit_of_work import SqlDatabase
from tests.fakes import FakeClock
from tests.messages import check_message, computation_message, put_events
from tests.mqtt.broker import Certificates, Mosquitto
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


async def deliver_all(books: SqlDatabase, broker: MqttPublisher, clock: FakeClock, backlog: Backlog) -> None:
    """Deliver until nothing waits."""
    async with asyncio.timeout(30):
        while await deliver_events(books, broker, clock, backlog) or backlog.waiting:
            clock.time += 1


async def test_messages_outlive_a_broker_that_is_down(mosquitto: Mosquitto, database: DatabaseEngine) -> None:
    """The outbox keeps what the broker did not take, in order for each computation, and each message has the published form."""
    books, clock, backlog = SqlDatabase(database), FakeClock(), Backlog(Channel.MQTT)
    broker = publisher(mosquitto.port)
    states = ("pending", "running", "completed")
    await mosquitto.stop()
    for state in states:
        await put_events(books, clock, *(computation_message(number, state) for number in range(40)))
        assert await deliver_events(books, broker, clock, backlog) == 0
        clock.time += 10
    assert (backlog.waiting, backlog.oldest_seconds, backlog.dropped) == (120, 20, 0)
    await mosquitto.start()
    clock.time += 1000
    async with aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
        await client.subscribe(f"pandacea/{NODE}/computations/#", qos=1)
        await deliver_all(books, broker, clock, backlog)
        received = await receive_messages(client, 120)
    for topic, payload in received:
        check_message(payload)
        assert topic == computation_message(int(topic.split("/")[1], 16), topic.split("/")[2]).topic
    for number in range(40):
        assert [topic.split("/")[2] for topic, _ in received if int(topic.split("/")[1], 16) == number] == list(states)
    assert await deliver_events(books, broker, clock) == 0, "delivered messages are not sent again"
    await broker.close()


async def test_a_broker_away_for_longer_than_the_backlog_hears_the_newest(
    mosquitto: Mosquitto, database: DatabaseEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the bound the oldest go, counted and logged; what stays is in order, so the last word about each computation is right."""
    books, clock, backlog = SqlDatabase(database), FakeClock(), Backlog(Channel.MQTT, max_messages=15)
    broker = publisher(mosquitto.port)
    await mosquitto.stop()
    for state in ("pending", "running", "completed"):
        await put_events(books, clock, *(computation_message(number, state) for number in range(10)))
        await deliver_events(books, broker, clock, backlog)
    assert (backlog.waiting, backlog.dropped) == (15, 15)
    assert "messages.dropped" in "".join(capsys.readouterr())
    await mosquitto.start()
    clock.time += 1000
    async with aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
        await client.subscribe(f"pandacea/{NODE}/computations/#", qos=1)
        await deliver_all(books, broker, clock, backlog)
        received = await receive_messages(client, 15)
    told = [(int(topic.split("/")[1], 16), topic.split("/")[2]) for topic, _ in received]
    assert told == [*((number, "running") for number in range(5, 10)), *((number, "completed") for number in range(10))]
    await broker.close()


async def test_a_repeated_message_has_the_same_id(mosquitto: Mosquitto, database: DatabaseEngine) -> None:
    """A node killed between the broker's word and its own note sends again; a subscriber knows the id."""
    books, clock = SqlDatabase(database), FakeClock()
    await put_events(books, clock, computation_message(1, "completed"), computation_message(1, "completed"))
    async with books.read_session() as session:
        (entry,) = await session.outbox.fetch_due(Channel.MQTT, clock.now())
    broker = publisher(mosquitto.port)
    async with aiomqtt.Client("127.0.0.1", mosquitto.port) as client:
        await client.subscribe(f"pandacea/{NODE}/computations/#", qos=1)
        await broker.publish(entry.message.topic, entry.message.payload)
        assert await deliver_events(books, broker, clock) == 1
        first, second = await receive_messages(client, 2)
    assert first == second
    await broker.close()


@pytest.fixture
async def private_broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    """Under an authority of its own, and only for clients that show a certificate of it."""
    broker = Mosquitto(tmp_path, free_port(), certificates=Certificates(tmp_path).make())
    await broker.start()
    yield broker
    await broker.stop()


def tls_publisher(broker: Mosquitto, *, ca: bool = True, certificate: bool = True) -> MqttPublisher:
    assert broker.certificates is not None
    files = broker.certificates
    return MqttPublisher(
        MqttSettings(
            *("127.0.0.1", broker.port, None, None),
            tls=True,
            topic_prefix="pandacea",
            node_name=NODE,
            tls_ca=files.certificate("ca") if ca else None,
            tls_certificate=files.certificate("client") if certificate else None,
            tls_key=files.key("client") if certificate else None,
        )
    )


async def test_a_private_authority_and_a_client_certificate(private_broker: Mosquitto) -> None:
    """Both sides prove who they are, without changing any other connection of the node."""
    broker = tls_publisher(private_broker)
    await broker.announce_online()
    await broker.close()


@pytest.mark.parametrize("missing", ["ca", "certificate"])
async def test_without_authority_or_certificate_nothing_is_told(private_broker: Mosquitto, missing: str) -> None:
    """A broker of an unknown authority is not believed; a client without certificate is not served."""
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        await tls_publisher(private_broker, **{missing: False}).announce_online()


async def test_a_missing_broker_is_named() -> None:
    """The sentence says which broker does not answer."""
    port = free_port()
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        await publisher(port).publish("status", {})
