"""The outbox: messages to the broker and the chain, written in the transaction that made them true."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Text, delete, func, insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.flows.messages import Event
from pandacea.flows.unit_of_work import LISTENER_CHANNELS, Channel, OutboxEntry, OutboxMessage, WaitingMessages
from pandacea_sdk.protocol.json_types import JsonObject


class OutboxRow(SQLModel, table=True):
    """One message, delivered at least once; `key` is its idempotency key."""

    __tablename__ = "outbox"
    __table_args__ = (Index("outbox_waiting", "channel", "done_at", "next_at"),)

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    )
    channel: str = Field(max_length=16)
    key: str = Field(max_length=160, unique=True)
    topic: str = Field(max_length=160)
    payload: JsonObject = Field(sa_column=Column(JSON, nullable=False))
    created_at: float
    next_at: float
    attempts: int = 0
    done_at: float | None = None
    result: str | None = Field(default=None, sa_column=Column(Text, nullable=True))


_outbox: Final = SQLModel.metadata.tables["outbox"]


class OutboxTable:
    """The outbox as one connection sees it."""

    def __init__(
        self,
        connection: AsyncConnection,
        channels: Collection[Channel] = frozenset(Channel),
        webhook_events: Collection[str] = (),
    ) -> None:
        """Reads may use any connection; writes need the transaction's.

        `channels`: those that this node delivers on. `webhook_events`: types of events that the webhook hears; empty: all.
        """
        self._connection = connection
        self._channels = channels
        self._webhook_events = webhook_events

    async def put_message(self, message: OutboxMessage, now: float) -> None:
        """Add one message to this transaction, unless this node does not deliver on its channel."""
        if message.channel not in self._channels:
            return
        row = {
            "channel": message.channel,
            "key": message.key,
            "topic": message.topic,
            "payload": message.payload,
            "created_at": now,
            "next_at": now,
            "attempts": 0,
        }
        await self._connection.execute(insert(_outbox), [row])

    async def put_event(self, event: Event, now: float) -> None:
        """Add an event to this transaction for each channel on which somebody listens, unless it is there already."""
        for channel in LISTENER_CHANNELS:
            if channel not in self._channels or (
                channel is Channel.WEBHOOK and self._webhook_events and event.type not in self._webhook_events
            ):
                continue
            key = f"{channel}:{event.key}"
            if not await self.has_message(key):
                await self.put_message(OutboxMessage(channel, key, event.topic, event.to_payload(now)), now)

    async def fetch_due(self, channel: Channel, now: float, limit: int = 100) -> list[OutboxEntry]:
        """Return the messages that are due, in order; on an ordered channel all of them wait for the first one's next attempt."""
        due = (_outbox.c.channel == channel) & _outbox.c.done_at.is_(None)
        if not channel.is_ordered:
            due &= _outbox.c.next_at <= now
        query = select(_outbox).where(due).order_by(_outbox.c.id).limit(limit)
        rows = (await self._connection.execute(query)).mappings().all()
        if channel.is_ordered and rows and rows[0]["next_at"] > now:
            return []
        return [_read(row) for row in rows]

    async def mark_delivered(self, row_id: int, now: float, result: str | None = None) -> None:
        """Mark a message as delivered and store the note (a transaction hash)."""
        await self._connection.execute(update(_outbox).where(_outbox.c.id == row_id).values(done_at=now, result=result))

    async def retry_message(self, row_id: int, next_at: float, reason: str) -> None:
        """Store why a message was not delivered, and attempt it again at `next_at` (Unix seconds)."""
        later = update(_outbox).where(_outbox.c.id == row_id)
        await self._connection.execute(later.values(next_at=next_at, attempts=_outbox.c.attempts + 1, result=reason))

    async def has_message(self, key: str) -> bool:
        """Whether a message with this key was put and is not pruned yet."""
        return (await self._connection.execute(select(_outbox.c.id).where(_outbox.c.key == key))).first() is not None

    async def measure_waiting(self, channel: Channel) -> WaitingMessages:
        """Return how many messages wait on a channel, and since when the oldest does."""
        waits = (_outbox.c.channel == channel) & _outbox.c.done_at.is_(None)
        query = select(func.count(), func.min(_outbox.c.created_at)).select_from(_outbox).where(waits)
        count, oldest = (await self._connection.execute(query)).one()
        return WaitingMessages(int(count), oldest)

    async def drop_waiting(self, channel: Channel, keep: int, before: float) -> int:
        """Delete the oldest messages that wait on a channel beyond the newest `keep`, and those put there before a time (Unix seconds).

        Returns how many went.
        """
        waits = (_outbox.c.channel == channel) & _outbox.c.done_at.is_(None)
        kept_from = (select(_outbox.c.id).where(waits).order_by(_outbox.c.id.desc()).offset(keep - 1).limit(1)).scalar_subquery()
        gone = waits & ((_outbox.c.created_at < before) | (_outbox.c.id < kept_from))
        return int((await self._connection.execute(delete(_outbox).where(gone))).rowcount)

    async def prune_messages(self, delivered_before: float) -> int:
        """Delete what was delivered before a time (Unix seconds), and what waits for a listener that is not configured any more."""
        deaf = [one for one in LISTENER_CHANNELS if one not in self._channels]
        undeliverable = _outbox.c.done_at.is_(None) & _outbox.c.channel.in_(deaf)
        delivered = _outbox.c.done_at.is_not(None) & (_outbox.c.done_at < delivered_before)
        return int((await self._connection.execute(delete(_outbox).where(delivered | undeliverable))).rowcount)


def _read(row: RowMapping) -> OutboxEntry:
    message = OutboxMessage(Channel(row["channel"]), row["key"], row["topic"], row["payload"])
    return OutboxEntry(row["id"], row["created_at"], row["attempts"], message, row["result"])
