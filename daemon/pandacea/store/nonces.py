"""Request nonces: each (key, nonce) is accepted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, insert, select
from sqlmodel import Field, SQLModel

from pandacea.store.session import Transaction


class RequestNonce(SQLModel, table=True):
    """A nonce seen, kept until the request that carried it could no longer be accepted anyway."""

    __tablename__ = "request_nonce"

    keyid: str = Field(primary_key=True, max_length=80)
    nonce: str = Field(primary_key=True, max_length=64)
    expires: int = Field(index=True)


_nonce: Any = SQLModel.metadata.tables["request_nonce"]


async def insert_many(tx: Transaction, rows: Sequence[tuple[str, str, int]]) -> list[bool]:
    """Insert (keyid, nonce, expires) rows; for each, True when it was new. Order matters: of two equal rows the first wins."""
    wanted = {(keyid, nonce) for keyid, nonce, _ in rows}
    keys = {keyid for keyid, _ in wanted}
    query = select(_nonce.c.keyid, _nonce.c.nonce).where(_nonce.c.keyid.in_(keys) & _nonce.c.nonce.in_({n for _, n in wanted}))
    seen = {(row.keyid, row.nonce) for row in (await tx.connection.execute(query)).all()}
    fresh: list[bool] = []
    values = []
    for keyid, nonce, expires in rows:
        new = (keyid, nonce) not in seen
        fresh.append(new)
        if new:
            seen.add((keyid, nonce))
            values.append({"keyid": keyid, "nonce": nonce, "expires": expires})
    if values:
        await tx.connection.execute(insert(_nonce), values)
    return fresh


async def prune(tx: Transaction, before: int) -> int:
    """Forget nonces that expired before a time; returns how many."""
    return int((await tx.connection.execute(delete(_nonce).where(_nonce.c.expires < before))).rowcount)
