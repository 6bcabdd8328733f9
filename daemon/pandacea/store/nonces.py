"""Request nonces: each (key, nonce) is accepted once.

They are written alone (`Database.autocommit`): every signed request waits for its nonce, and must not wait for a job's transaction too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import Field, SQLModel

from pandacea.store.database_engine import DatabaseEngine


class RequestNonceRow(SQLModel, table=True):
    """A nonce seen, kept until the request that carried it could no longer be accepted anyway."""

    __tablename__ = "request_nonce"

    keyid: str = Field(primary_key=True, max_length=80)
    nonce: str = Field(primary_key=True, max_length=64)
    expires: int = Field(index=True, sa_type=BigInteger)


_nonce: Any = SQLModel.metadata.tables["request_nonce"]


async def spend_nonces(database: DatabaseEngine, rows: Sequence[tuple[str, str, int]]) -> list[bool]:
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
    new = {tuple(row) for row in await database.execute_autocommit(statement, tuple(value for row in rows for value in row))}
    fresh: list[bool] = []
    for keyid, nonce, _ in rows:
        fresh.append((keyid, nonce) in new)
        new.discard((keyid, nonce))
    return fresh


async def prune_nonces(database: DatabaseEngine, before: int) -> None:
    """Forget nonces that expired before a time (Unix seconds)."""
    mark = "$1" if database.dialect == "postgresql" else "?"
    await database.execute_autocommit(f"DELETE FROM request_nonce WHERE expires < {mark}", (before,))  # noqa: S608  # a placeholder


async def create_nonce_table(database: DatabaseEngine) -> None:
    """Make the table where it is kept apart; elsewhere the migrations did."""
    if database.dialect == "sqlite":
        dialect = sqlite.dialect()
        await database.execute_autocommit(str(CreateTable(_nonce, if_not_exists=True).compile(dialect=dialect)), ())
        for index in _nonce.indexes:
            await database.execute_autocommit(str(CreateIndex(index, if_not_exists=True).compile(dialect=dialect)), ())
