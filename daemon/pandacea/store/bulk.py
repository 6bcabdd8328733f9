"""Bulk reads and writes of plain rows through the driver, without an object of SQLModel for each row: ten times the speed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final, TypeVar

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")

DbRow = Sequence[Any]
"""A row's values in the order of its statement's columns; the statement decides the type of each."""

IN_LIST_SIZE: Final = 2_000
"""Values of one IN list; SQLite and PostgreSQL allow 32,766 parameters."""


def upsert_statement(connection: AsyncConnection, table: Table, *, update: bool = True) -> str:
    """Write an INSERT of whole rows (every column, in table order); a row whose key exists is replaced, or kept when not `update`."""
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
    """Write each `?` of a statement as the connection's driver wants it."""
    return _with_placeholders(connection.dialect.name, sql)


@cache
def _with_placeholders(dialect: str, sql: str) -> str:
    return place_parameters(dialect, sql)


def place_parameters(dialect: str, sql: str) -> str:
    """Write each `?` of a statement as a dialect's driver wants it; the text is not cached."""
    if dialect != "postgresql":
        return sql
    pieces = sql.split("?")
    return "".join(f"{piece}${place}" for place, piece in enumerate(pieces[:-1], 1)) + pieces[-1]


def select_statement(columns: Iterable[str], source: str) -> str:
    """Write a SELECT of columns of our own; `source`: from FROM on."""
    return f"SELECT {', '.join(columns)} {source}"


async def execute_many(connection: AsyncConnection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
    """Execute one statement for many rows of parameters."""
    if rows:
        await connection.exec_driver_sql(sql, list(rows))


async def select_in(connection: AsyncConnection, sql: str, fixed: tuple[object, ...], values: Sequence[str]) -> list[DbRow]:
    """Select rows by many values: `(IN)` at the end of `sql` becomes a list of them, chunk by chunk; `fixed`: the parameters before it."""
    found: list[DbRow] = []
    for chunk in split_chunks(values, IN_LIST_SIZE):
        # Not cached: there is a text for every length.
        query = place_parameters(connection.dialect.name, sql.replace("(IN)", f"({', '.join('?' * len(chunk))})"))
        found.extend((await connection.exec_driver_sql(query, (*fixed, *chunk))).all())
    return found


def split_chunks(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Split a sequence into parts of at most `size` values."""
    for start in range(0, len(values), size):
        yield values[start : start + size]
