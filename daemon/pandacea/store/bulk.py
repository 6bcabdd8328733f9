"""Whole batches through the driver: the tables are SQLModel's, the rows go past its objects (ten times the speed)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

IN_LIST_SIZE: Final = 2_000
"""Values of one IN list: far below the 32,766 parameters that SQLite and PostgreSQL allow."""


def upsert_statement(connection: AsyncConnection, table: Table, *, update: bool = True) -> str:
    """INSERT of whole rows (every column, in table order); a row whose key exists is replaced, or kept when not `update`."""
    return _upsert_statement(connection.dialect.name, table, update)


@cache
def _upsert_statement(dialect: str, table: Table, update: bool) -> str:
    columns = [column.name for column in table.columns]
    key = [column.name for column in table.primary_key.columns]
    rest = [name for name in columns if name not in key]
    marks = _with_placeholders(dialect, ", ".join("?" * len(columns)))
    action = "UPDATE SET " + ", ".join(f"{name} = excluded.{name}" for name in rest) if update and rest else "NOTHING"
    return f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT ({', '.join(key)}) DO {action}"  # noqa: S608 - names of our own tables


def with_placeholders(connection: AsyncConnection, sql: str) -> str:
    """Write each `?` as the driver wants it."""
    return _with_placeholders(connection.dialect.name, sql)


@cache
def _with_placeholders(dialect: str, sql: str) -> str:
    return _replace_placeholders(dialect, sql)


def _replace_placeholders(dialect: str, sql: str) -> str:
    if dialect != "postgresql":
        return sql
    pieces = sql.split("?")
    return "".join(f"{piece}${place}" for place, piece in enumerate(pieces[:-1], 1)) + pieces[-1]


async def execute_many(connection: AsyncConnection, sql: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Execute one statement for many rows of parameters."""
    if rows:
        await connection.exec_driver_sql(sql, list(rows))


async def select_in(connection: AsyncConnection, sql: str, fixed: tuple[Any, ...], values: Sequence[str]) -> list[Any]:
    """Rows of `sql`, whose last `(IN)` is filled with `values`, chunk by chunk; `fixed` are the parameters before it."""
    found: list[Any] = []
    for chunk in split_chunks(values, IN_LIST_SIZE):
        # Not remembered: there is one text for every length.
        query = _replace_placeholders(connection.dialect.name, sql.replace("(IN)", f"({', '.join('?' * len(chunk))})"))
        found.extend((await connection.exec_driver_sql(query, (*fixed, *chunk))).all())
    return found


def split_chunks(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Cut a sequence into pieces of at most `size`."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
