"""Spenders that are plain keys (not contract wallets): each signed the creation of a lease of its own."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.ids import Address, Hash32
from pandacea.store.bulk import execute_many, upsert_statement


class PlainKeyRow(SQLModel, table=True):
    """An address whose key signed a transaction that was checked here. This holds on every chain; a reorganisation does not undo it."""

    __tablename__ = "plain_key"
    __table_args__ = ({"sqlite_with_rowid": False},)

    address: str = Field(primary_key=True, max_length=42)
    tx_hash: str = Field(max_length=66)
    at: int = Field(sa_column=Column(BigInteger, nullable=False))
    """When it was checked, in Unix seconds."""


_plain: Final = SQLModel.metadata.tables["plain_key"]


async def list_plain_keys(connection: AsyncConnection) -> set[Address]:
    """List every plain key that is known."""
    return {Address(row[0]) for row in (await connection.exec_driver_sql("SELECT address FROM plain_key")).all()}


async def save_plain_key(connection: AsyncConnection, address: Address, tx_hash: Hash32, at: int) -> None:
    """Store a plain key; a known one is left as it is."""
    await execute_many(connection, upsert_statement(connection, _plain, update=False), [(address, tx_hash, at)])
