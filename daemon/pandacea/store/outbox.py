"""The outbox: what must be told to the world, written in the transaction that made it true."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Text, delete, func, insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.flows.books import Channel, Message, Waiting


class Outbox(SQLModel, table=True):
    """One message, delivered at least once; `key` makes its effect happen once."""

    __tablename__ = "outbox"
    __table_args__ = (Index("outbox_waiting", "channel", "done_at", "next_at"),)

    id: int | None = Field(
        default=None, sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    )
    channel: str = Field(max_length=16)
    key: str = Field(max_length=160, unique=True)
    topic: str = Field(max_length=64)
    payload: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: float
    next_at: float
    attempts: int = 0
    done_at: float | None = None
    result: str | None = Field(default=None, sa_column=Column(Text, nullable=True))


_outbox: Any = SQLModel.metadata.tables["outbox"]


class Outboxes:
    """The outbox as one connection sees it."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Reads may use any connection; writes the transaction's."""
        self._connection = connection

    async def put(self, message: Message, now: float) -> None:
        """Add one message to this transaction."""
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

    async def waiting(self, channel: Channel, now: float, limit: int = 100) -> list[Waiting]:
        """Messages due, in the order they were made."""
        due = (_outbox.c.channel == channel) & _outbox.c.done_at.is_(None) & (_outbox.c.next_at <= now)
        query = select(_outbox).where(due).order_by(_outbox.c.id).limit(limit)
        return [_read(row) for row in (await self._connection.execute(query)).mappings().all()]

    async def delivered(self, row_id: int, now: float, result: str | None = None) -> None:
        """The world has it."""
        await self._connection.execute(update(_outbox).where(_outbox.c.id == row_id).values(done_at=now, result=result))

    async def again(self, row_id: int, next_at: float, reason: str) -> None:
        """Not delivered: try at `next_at`."""
        later = update(_outbox).where(_outbox.c.id == row_id)
        await self._connection.execute(later.values(next_at=next_at, attempts=_outbox.c.attempts + 1, result=reason))

    async def depth(self, channel: Channel) -> int:
        """How many messages wait."""
        query = select(func.count()).where((_outbox.c.channel == channel) & _outbox.c.done_at.is_(None))
        return int((await self._connection.execute(query)).scalar_one())

    async def prune(self, before: float) -> int:
        """Forget what was delivered before a time; returns how many."""
        old = _outbox.c.done_at.is_not(None) & (_outbox.c.done_at < before)
        return int((await self._connection.execute(delete(_outbox).where(old))).rowcount)


def _read(row: RowMapping) -> Waiting:
    message = Message(Channel(row["channel"]), row["key"], row["topic"], row["payload"])
    return Waiting(row["id"], row["created_at"], row["attempts"], message)


async def has(connection: AsyncConnection, key: str) -> bool:
    """Whether a message with this key was ever put and is not pruned yet."""
    return (await connection.execute(select(_outbox.c.id).where(_outbox.c.key == key))).first() is not None
