"""The outbox: messages to the broker and the chain, written in the transaction that made them true."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Text, delete, insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.flows.unit_of_work import Channel, OutboxEntry, OutboxMessage
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
    topic: str = Field(max_length=64)
    payload: JsonObject = Field(sa_column=Column(JSON, nullable=False))
    created_at: float
    next_at: float
    attempts: int = 0
    done_at: float | None = None
    result: str | None = Field(default=None, sa_column=Column(Text, nullable=True))


_outbox: Final = SQLModel.metadata.tables["outbox"]


class OutboxTable:
    """The outbox as one connection sees it."""

    def __init__(self, connection: AsyncConnection, channels: Collection[Channel] = frozenset(Channel)) -> None:
        """Reads may use any connection; writes need the transaction's. `channels`: those that this node delivers on."""
        self._connection = connection
        self._channels = channels

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

    async def prune_messages(self, delivered_before: float, waiting_before: float) -> int:
        """Delete what was delivered before a time, and what will not be delivered any more; returns how many.

        Args:
            delivered_before: Unix seconds.
            waiting_before: Unix seconds; what was put into an ordered channel before and still waits is too old to be sent.
        """
        waits = _outbox.c.done_at.is_(None)
        stale = waits & _outbox.c.channel.in_([one for one in Channel if one.is_ordered]) & (_outbox.c.created_at < waiting_before)
        undeliverable = waits & _outbox.c.channel.in_([one for one in Channel if one.is_ordered and one not in self._channels])
        delivered = _outbox.c.done_at.is_not(None) & (_outbox.c.done_at < delivered_before)
        return int((await self._connection.execute(delete(_outbox).where(delivered | stale | undeliverable))).rowcount)


def _read(row: RowMapping) -> OutboxEntry:
    message = OutboxMessage(Channel(row["channel"]), row["key"], row["topic"], row["payload"])
    return OutboxEntry(row["id"], row["created_at"], row["attempts"], message, row["result"])
