"""Request nonces: each (key, nonce) is accepted once.

They are written with `DatabaseEngine.execute_autocommit`: every signed request waits for its nonce, and must not wait for a job's
transaction too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import BigInteger
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import Field, SQLModel

from pandacea.store.bulk import place_parameters
from pandacea.store.database_engine import DatabaseEngine


class RequestNonceRow(SQLModel, table=True):
    """A used nonce, stored until the request that carried it would be refused as too old."""

    __tablename__ = "request_nonce"

    keyid: str = Field(primary_key=True, max_length=80)
    nonce: str = Field(primary_key=True, max_length=64)
    expires: int = Field(index=True, sa_type=BigInteger)


_nonce: Final = SQLModel.metadata.tables["request_nonce"]
_INSERT: Final = "INSERT INTO request_nonce (keyid, nonce, expires) VALUES (ROWS) ON CONFLICT DO NOTHING RETURNING keyid, nonce"


async def spend_nonces(database: DatabaseEngine, rows: Sequence[tuple[str, str, int]]) -> list[bool]:
    """Insert (keyid, nonce, expires) rows durably; for each, True when it was new. Of two equal rows the first is new.

    It is one statement and a transaction of its own, for every signed request waits for it.
    """
    if not rows:
        return []
    statement = place_parameters(database.dialect, _INSERT.replace("(ROWS)", ",".join(["(?,?,?)"] * len(rows))))
    new = {tuple(row) for row in await database.execute_autocommit(statement, tuple(value for row in rows for value in row))}
    fresh: list[bool] = []
    for keyid, nonce, _ in rows:
        fresh.append((keyid, nonce) in new)
        new.discard((keyid, nonce))
    return fresh


async def prune_nonces(database: DatabaseEngine, before: int) -> None:
    """Delete nonces that expired before a time (Unix seconds)."""
    statement = place_parameters(database.dialect, "DELETE FROM request_nonce WHERE expires < ?")
    await database.execute_autocommit(statement, (before,))


async def create_nonce_table(database: DatabaseEngine) -> None:
    """Create the table in SQLite's second file; in PostgreSQL the migrations did."""
    if database.dialect == "sqlite":
        dialect = sqlite.dialect()
        await database.execute_autocommit(str(CreateTable(_nonce, if_not_exists=True).compile(dialect=dialect)), ())
        for index in _nonce.indexes:
            await database.execute_autocommit(str(CreateIndex(index, if_not_exists=True).compile(dialect=dialect)), ())
