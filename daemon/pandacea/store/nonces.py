"""Request nonces: each (key, nonce) is accepted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, delete, insert, select
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
        keys, nonces = {keyid for keyid, _, _ in rows}, {nonce for _, nonce, _ in rows}
        query = select(_nonce.c.keyid, _nonce.c.nonce).where(_nonce.c.keyid.in_(keys) & _nonce.c.nonce.in_(nonces))
        seen = {(row.keyid, row.nonce) for row in (await self._connection.execute(query)).all()}
        fresh: list[bool] = []
        values = []
        for keyid, nonce, expires in rows:
            new = (keyid, nonce) not in seen
            fresh.append(new)
            if new:
                seen.add((keyid, nonce))
                values.append({"keyid": keyid, "nonce": nonce, "expires": expires})
        if values:
            await self._connection.execute(insert(_nonce), values)
        return fresh

    async def prune(self, before: int) -> int:
        """Forget nonces that expired before a time (Unix seconds); returns how many."""
        return int((await self._connection.execute(delete(_nonce).where(_nonce.c.expires < before))).rowcount)
