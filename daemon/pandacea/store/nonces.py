"""Request nonces: each (key, nonce) is accepted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, delete
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel


class RequestNonce(SQLModel, table=True):
    """A nonce seen, kept until the request that carried it could no longer be accepted anyway."""

    __tablename__ = "request_nonce"

    keyid: str = Field(primary_key=True, max_length=80)
    nonce: str = Field(primary_key=True, max_length=64)
    expires: int = Field(index=True, sa_type=BigInteger)


_nonce: Any = SQLModel.metadata.tables["request_nonce"]


class Nonces:
    """The nonces as one connection sees them."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Use the transaction's connection."""
        self._connection = connection

    async def insert_many(self, rows: Sequence[tuple[str, str, int]]) -> list[bool]:
        """Insert (keyid, nonce, expires) rows; for each, True when it was new. Of two equal rows the first wins."""
        if not rows:
            return []
        # One statement, straight to the driver: it is on the path of every signed request, and both databases speak it.
        dollar = self._connection.dialect.name == "postgresql"
        places = (f"(${n + 1},${n + 2},${n + 3})" if dollar else "(?,?,?)" for n in range(0, 3 * len(rows), 3))
        statement = (
            f"INSERT INTO request_nonce (keyid, nonce, expires) VALUES {','.join(places)} "  # noqa: S608  # placeholders only
            "ON CONFLICT DO NOTHING RETURNING keyid, nonce"
        )
        found = await self._connection.exec_driver_sql(statement, tuple(value for row in rows for value in row))
        new = {(row["keyid"], row["nonce"]) for row in found.mappings().all()}
        fresh: list[bool] = []
        for keyid, nonce, _ in rows:
            fresh.append((keyid, nonce) in new)
            new.discard((keyid, nonce))
        return fresh

    async def prune(self, before: int) -> int:
        """Forget nonces that expired before a time (Unix seconds); returns how many."""
        return int((await self._connection.execute(delete(_nonce).where(_nonce.c.expires < before))).rowcount)
