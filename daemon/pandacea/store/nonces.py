"""Request nonces: each (key, nonce) is accepted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, delete
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.store.session import Database


class RequestNonce(SQLModel, table=True):
    """A nonce seen, kept until the request that carried it could no longer be accepted anyway."""

    __tablename__ = "request_nonce"

    keyid: str = Field(primary_key=True, max_length=80)
    nonce: str = Field(primary_key=True, max_length=64)
    expires: int = Field(index=True, sa_type=BigInteger)


_nonce: Any = SQLModel.metadata.tables["request_nonce"]


async def spend(database: Database, rows: Sequence[tuple[str, str, int]]) -> list[bool]:
    """Insert (keyid, nonce, expires) rows, durably; for each, True when it was new. Of two equal rows the first wins.

    One statement and its own transaction: it is on the path of every signed request.
    """
    if not rows:
        return []
    dollar = database.dialect == "postgresql"
    places = (f"(${n + 1},${n + 2},${n + 3})" if dollar else "(?,?,?)" for n in range(0, 3 * len(rows), 3))
    statement = (
        f"INSERT INTO request_nonce (keyid, nonce, expires) VALUES {','.join(places)} "  # noqa: S608  # placeholders only
        "ON CONFLICT DO NOTHING RETURNING keyid, nonce"
    )
    new = {tuple(row) for row in await database.autocommit(statement, tuple(value for row in rows for value in row))}
    fresh: list[bool] = []
    for keyid, nonce, _ in rows:
        fresh.append((keyid, nonce) in new)
        new.discard((keyid, nonce))
    return fresh


class Nonces:
    """The nonces as one connection sees them."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Use the transaction's connection."""
        self._connection = connection

    async def prune(self, before: int) -> int:
        """Forget nonces that expired before a time (Unix seconds); returns how many."""
        return int((await self._connection.execute(delete(_nonce).where(_nonce.c.expires < before))).rowcount)
