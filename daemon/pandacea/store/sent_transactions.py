"""Transactions that this node signed: written before they are sent, so that a nonce is never used for two purposes."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, Column, ColumnElement, Row, Text
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Field, SQLModel

from pandacea.domain.ids import Address, Hash32
from pandacea.errors import Unavailable
from pandacea.flows.following.chain_store import SentTransaction
from pandacea.store.database_engine import DatabaseEngine


class SentTransactionRow(SQLModel, table=True):
    """One signed attempt. Attempts for one purpose share a nonce; each pays a higher fee than the one before."""

    __tablename__ = "sent_transaction"

    chain_id: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    sender: str = Field(primary_key=True, max_length=42)
    nonce: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    attempt: int = Field(primary_key=True)
    purpose: str = Field(max_length=160, index=True)
    """What the transaction is for, for example `commitResult:<lease>:<computation>`."""
    tx_hash: str = Field(max_length=66)
    raw: str = Field(sa_column=Column(Text, nullable=False))
    """The signed transaction in hex, which is sent again unchanged after a crash."""
    max_cost: str = Field(max_length=78)
    """Gas limit x fee cap in wei, decimal; the daily limit counts it."""
    max_fee: str = Field(max_length=78)
    priority_fee: str = Field(max_length=78)
    at: float
    state: str = Field(max_length=12)
    """`signed`, `mined` (seen in a block), `final` (settled), `lost` (its nonce was used otherwise or it reverted)."""
    mined_block: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    paid: str | None = Field(default=None, max_length=78)
    """Wei that it cost, decimal; NULL: not mined, or mined before this was kept."""


_sent: Final = SQLModel.metadata.tables["sent_transaction"]


class SqlSentTransactionStore:
    """`flows.following.chain_store.SentTransactionStore` on SQLite or PostgreSQL; each call is a transaction of its own."""

    def __init__(self, database: DatabaseEngine) -> None:
        """`database`: the node's one engine."""
        self._database = database

    async def list_open(self, chain_id: int, sender: Address) -> list[SentTransaction]:
        """List the attempts that are neither final nor lost, by nonce."""
        return await self._select(
            (_sent.c.chain_id == chain_id) & (_sent.c.sender == sender) & _sent.c.state.in_(("signed", "mined"))
        )

    async def list_since(self, chain_id: int, sender: Address, at: float) -> list[SentTransaction]:
        """List the attempts signed since a time (Unix seconds)."""
        return await self._select((_sent.c.chain_id == chain_id) & (_sent.c.sender == sender) & (_sent.c.at >= at))

    async def list_from_nonce(self, chain_id: int, sender: Address, nonce: int) -> list[SentTransaction]:
        """List every attempt with this nonce or a higher one, whatever its state."""
        return await self._select((_sent.c.chain_id == chain_id) & (_sent.c.sender == sender) & (_sent.c.nonce >= nonce))

    async def list_mined(self, chain_id: int) -> list[SentTransaction]:
        """List the attempts of any key of this node that are in a block of a chain."""
        return await self._select((_sent.c.chain_id == chain_id) & _sent.c.state.in_(("mined", "final")))

    async def insert_attempt(self, row: SentTransaction) -> None:
        """Insert an attempt durably, before it is sent."""
        async with self._database.write_transaction() as tx:
            values = {name: getattr(row, name) for name in [column.name for column in _sent.columns]}
            for name in ("max_cost", "max_fee", "priority_fee"):
                values[name] = str(values[name])
            values["paid"] = None if row.paid is None else str(row.paid)
            await tx.connection.execute(_sent.insert().values(values))
            await tx.commit()

    async def update_state(self, row: SentTransaction, state: str, mined_block: int | None = None, paid: int | None = None) -> None:
        """Write the state of an attempt, and what it cost in wei where it is mined."""
        key = (
            (_sent.c.chain_id == row.chain_id)
            & (_sent.c.sender == row.sender)
            & (_sent.c.nonce == row.nonce)
            & (_sent.c.attempt == row.attempt)
        )
        cost = None if paid is None else str(paid)
        async with self._database.write_transaction() as tx:
            await tx.connection.execute(_sent.update().where(key).values(state=state, mined_block=mined_block, paid=cost))
            await tx.commit()

    async def _select(self, condition: ColumnElement[bool]) -> list[SentTransaction]:
        query = _sent.select().where(condition).order_by(_sent.c.nonce, _sent.c.attempt)
        try:
            async with self._database.read_connection() as connection:
                rows = (await connection.execute(query)).all()
        except (SQLAlchemyError, OSError) as problem:
            raise Unavailable(f"The node's database does not answer ({type(problem).__name__}).") from problem
        return [_row(row) for row in rows]


def _row(row: Row[Any]) -> SentTransaction:
    return SentTransaction(
        chain_id=row.chain_id,
        sender=Address(row.sender),
        nonce=row.nonce,
        attempt=row.attempt,
        purpose=row.purpose,
        tx_hash=Hash32(row.tx_hash),
        raw=row.raw,
        max_cost=int(row.max_cost),
        max_fee=int(row.max_fee),
        priority_fee=int(row.priority_fee),
        at=row.at,
        state=row.state,
        mined_block=row.mined_block,
        paid=None if row.paid is None else int(row.paid),
    )
