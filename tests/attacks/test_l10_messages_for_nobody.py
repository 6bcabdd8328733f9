"""Messages for a broker that is not configured pile up in the database and are all told once one is."""

from __future__ import annotations

from pandacea.errors import Unavailable
from pandacea.flows.announce import announce
from pandacea.flows.books import Channel, Message
from pandacea.flows.housekeeping import KEEP_DELIVERED, KEEP_WAITING
from pandacea.store.books import SqlBooks
from pandacea.store.session import Database
from tests.fakes import FakeClock


def message(number: int) -> Message:
    return Message(Channel.MQTT, f"k{number}", "computations/pending", {"n": number})


class Broker:
    """Takes messages unless it is away."""

    def __init__(self) -> None:
        self.away = False
        self.heard: list[object] = []

    async def publish(self, _topic: str, payload: dict[str, object]) -> None:
        if self.away:
            raise Unavailable("away")
        self.heard.append(payload["n"])


async def test_without_a_broker_nothing_is_written_and_what_was_is_dropped(database: Database) -> None:
    """A node that tells nobody keeps nothing for nobody; a broker configured later hears what happens from then on."""
    clock, telling, silent = FakeClock(), SqlBooks(database), SqlBooks(database, frozenset({Channel.CHAIN}))
    async with telling.write() as work:
        await work.outbox.put(message(1), clock.now())
        await work.commit()
    async with silent.write() as work:
        await work.outbox.put(message(2), clock.now())
        await work.outbox.put(Message(Channel.CHAIN, "c", "commitResult", {}), clock.now())
        assert await work.outbox.depth(Channel.MQTT) == 1, "the second was not written"
        await work.outbox.prune(clock.now() - KEEP_DELIVERED, clock.now() - KEEP_WAITING)
        assert (await work.outbox.depth(Channel.MQTT), await work.outbox.depth(Channel.CHAIN)) == (0, 1)
        await work.commit()


async def test_news_older_than_a_week_is_dropped_and_commitments_are_not(database: Database) -> None:
    """A broker that was away for long hears the last days; what must go on-chain waits for ever."""
    clock, books = FakeClock(), SqlBooks(database)
    async with books.write() as work:
        await work.outbox.put(message(1), clock.now())
        await work.outbox.put(Message(Channel.CHAIN, "c", "commitResult", {}), clock.now())
        clock.time += KEEP_WAITING + 1
        await work.outbox.put(message(2), clock.now())
        assert await work.outbox.prune(clock.now() - KEEP_DELIVERED, clock.now() - KEEP_WAITING) == 1
        assert [one.message.payload for one in await work.outbox.waiting(Channel.MQTT, clock.now())] == [{"n": 2}]
        assert await work.outbox.depth(Channel.CHAIN) == 1
        await work.commit()


async def test_an_outage_keeps_the_order(database: Database) -> None:
    """While the first message waits out its pause nothing overtakes it, however often the outbox is looked at."""
    clock, books, broker = FakeClock(), SqlBooks(database), Broker()
    async with books.write() as work:
        for number in range(5):
            await work.outbox.put(message(number), clock.now())
        await work.commit()
    broker.away = True
    for _ in range(7):
        assert await announce(books, broker, clock) == 0
        clock.time += 0.3
    broker.away = False
    while len(broker.heard) < 5:
        await announce(books, broker, clock)
        clock.time += 0.3
    assert broker.heard == [0, 1, 2, 3, 4]
