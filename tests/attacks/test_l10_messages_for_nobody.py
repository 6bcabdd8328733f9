"""Messages for a broker that is not configured pile up in the database and are all told once one is."""

from __future__ import annotations

from pandacea.domain.ids import ComputationId, Hash32, LeaseId
from pandacea.errors import Unavailable
from pandacea.flows.messages import commitment_event
from pandacea.flows.outbox import KEEP_DELIVERED_SECONDS, KEEP_WAITING_SECONDS, Backlog, deliver_events
from pandacea.flows.unit_of_work import Channel, OutboxMessage
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.unit_of_work import SqlDatabase
from tests.fakes import FakeClock


def message(number: int) -> OutboxMessage:
    return OutboxMessage(Channel.MQTT, f"k{number}", "computations/pending", {"n": number})


class Broker:
    """Takes messages unless it is away."""

    def __init__(self) -> None:
        self.away = False
        self.heard: list[object] = []

    async def publish(self, _topic: str, payload: dict[str, object]) -> None:
        if self.away:
            raise Unavailable("away")
        self.heard.append(payload["n"])


async def test_without_a_broker_nothing_is_written_and_what_was_is_dropped(database: DatabaseEngine) -> None:
    """A node that tells nobody keeps nothing for nobody; a broker configured later hears what happens from then on."""
    clock, telling, silent = FakeClock(), SqlDatabase(database), SqlDatabase(database, frozenset({Channel.CHAIN}))
    async with telling.unit_of_work() as work:
        await work.outbox.put_message(message(1), clock.now())
        await work.commit()
    async with silent.unit_of_work() as work:
        await work.outbox.put_message(message(2), clock.now())
        await work.outbox.put_event(commitment_event(LeaseId("0x1"), ComputationId("0x2"), Hash32("0x3")), clock.now())
        await work.outbox.put_message(OutboxMessage(Channel.CHAIN, "c", "commitResult", {}), clock.now())
        assert len(await work.outbox.fetch_due(Channel.MQTT, clock.now())) == 1, "the second was not written"
        await work.outbox.prune_messages(clock.now() - KEEP_DELIVERED_SECONDS)
        assert (
            len(await work.outbox.fetch_due(Channel.MQTT, clock.now())),
            len(await work.outbox.fetch_due(Channel.CHAIN, clock.now())),
        ) == (0, 1)
        await work.commit()


async def test_news_older_than_a_week_is_dropped_and_commitments_are_not(database: DatabaseEngine) -> None:
    """A broker that was away for long hears the last days; what must go on-chain waits for ever."""
    clock, books, broker, backlog = FakeClock(), SqlDatabase(database), Broker(), Backlog(Channel.MQTT)
    async with books.unit_of_work() as work:
        await work.outbox.put_message(message(1), clock.now())
        await work.outbox.put_message(OutboxMessage(Channel.CHAIN, "c", "commitResult", {}), clock.now())
        clock.time += KEEP_WAITING_SECONDS + 1
        await work.outbox.put_message(message(2), clock.now())
        await work.commit()
    assert await deliver_events(books, broker, clock, backlog) == 1
    assert (broker.heard, backlog.dropped) == ([2], 1)
    async with books.read_session() as session:
        assert len(await session.outbox.fetch_due(Channel.CHAIN, clock.now())) == 1


async def test_an_outage_keeps_the_order(database: DatabaseEngine) -> None:
    """While the first message waits out its pause nothing overtakes it, however often the outbox is looked at."""
    clock, books, broker = FakeClock(), SqlDatabase(database), Broker()
    async with books.unit_of_work() as work:
        for number in range(5):
            await work.outbox.put_message(message(number), clock.now())
        await work.commit()
    broker.away = True
    for _ in range(7):
        assert await deliver_events(books, broker, clock) == 0
        clock.time += 0.3
    broker.away = False
    while len(broker.heard) < 5:
        await deliver_events(books, broker, clock)
        clock.time += 0.3
    assert broker.heard == [0, 1, 2, 3, 4]
