"""The outbox: what must be told to the world, written in the transaction that made it true."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, Text, delete, func, insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.store.session import Transaction


class Channel(StrEnum):
    """Where a row is going."""

    MQTT = "mqtt"
    CHAIN = "chain"


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


async def put(tx: Transaction, channel: Channel, key: str, topic: str, payload: dict[str, Any], now: float) -> None:
    """Add one message to this transaction."""
    row = {"channel": channel, "key": key, "topic": topic, "payload": payload, "created_at": now, "next_at": now, "attempts": 0}
    await tx.connection.execute(insert(_outbox), [row])


async def waiting(connection: AsyncConnection, channel: Channel, now: float, limit: int = 100) -> Sequence[RowMapping]:
    """Messages due, in the order they were made."""
    due = (_outbox.c.channel == channel) & _outbox.c.done_at.is_(None) & (_outbox.c.next_at <= now)
    return (await connection.execute(select(_outbox).where(due).order_by(_outbox.c.id).limit(limit))).mappings().all()


async def delivered(tx: Transaction, ids: Sequence[int], now: float, result: str | None = None) -> None:
    """The world has them."""
    await tx.connection.execute(update(_outbox).where(_outbox.c.id.in_(ids)).values(done_at=now, result=result))


async def again(tx: Transaction, row_id: int, next_at: float, reason: str) -> None:
    """Not delivered: try at `next_at`."""
    later = update(_outbox).where(_outbox.c.id == row_id)
    await tx.connection.execute(later.values(next_at=next_at, attempts=_outbox.c.attempts + 1, result=reason))


async def depth(connection: AsyncConnection, channel: Channel) -> int:
    """How many messages wait."""
    query = select(func.count()).where((_outbox.c.channel == channel) & _outbox.c.done_at.is_(None))
    return int((await connection.execute(query)).scalar_one())


async def by_key(connection: AsyncConnection, key: str) -> RowMapping | None:
    """One message by its key."""
    return (await connection.execute(select(_outbox).where(_outbox.c.key == key))).mappings().first()


async def prune(tx: Transaction, before: float) -> int:
    """Forget what was delivered before a time; returns how many."""
    old = _outbox.c.done_at.is_not(None) & (_outbox.c.done_at < before)
    return int((await tx.connection.execute(delete(_outbox).where(old))).rowcount)
