"""Read one base table of a SQLite file from a copy in memory, without trust in its schema; each column must be of one kind.

In memory because SQLite opens files by name, and in this sandbox the file has none. So its size is limited.
"""

from __future__ import annotations

import mmap
import os
import sqlite3
from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from .arrow_batch import ConversionRefused

_ARROW_TYPES: Final = {"integer": pa.int64(), "real": pa.float64(), "text": pa.large_string(), "blob": pa.large_binary()}
_MAGIC: Final = b"SQLite format 3\0"
_Value = int | float | str | bytes | None
"""What SQLite stores in one place of a table."""


class SqliteReader:
    """Reads one table from a descriptor."""

    def __init__(self, descriptor: int, table: str | None, max_bytes: int) -> None:
        size = os.fstat(descriptor).st_size
        if size > max_bytes:
            raise ConversionRefused(
                f"a SQLite file may have {max_bytes} bytes here, this has {size}; export the table as CSV or Parquet"
            )
        try:
            self._db = sqlite3.connect(":memory:")
            self._db.deserialize(_private_copy(descriptor))
            self._harden()
            self.table = self._choose_table(table)
            self._quoted = _quote_identifier(self.table)
            found = self._db.execute(f"SELECT name, hidden FROM pragma_table_xinfo({_quote_text(self.table)})").fetchall()
            self.names = [str(name) for name, hidden in found if hidden == 0]
            if len(self.names) != len(found):
                raise ConversionRefused(
                    f"table {self.table!r} has generated columns, whose expressions would run here; copy it to a plain table"
                )
        except sqlite3.Error as error:
            raise ConversionRefused(f"it cannot be read as SQLite: {error}") from error

    def _harden(self) -> None:
        self._db.execute("PRAGMA trusted_schema = OFF")
        self._db.execute("PRAGMA cell_size_check = ON")
        self._db.execute("PRAGMA query_only = ON")
        self._db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)

    def _choose_table(self, table: str | None) -> str:
        """Return the base table asked for. Views and virtual tables are refused: they run what the file's author wrote."""
        rows = self._db.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'").fetchall()
        bases = sorted(str(name) for name, kind in rows if kind == "table" and not str(name).startswith("sqlite_"))
        if table is None:
            if len(bases) == 1:
                return bases[0]
            raise ConversionRefused(
                f"the file holds {len(bases)} tables; say which (--table for `products add`): {', '.join(bases[:20]) or 'there is none'}"
            )
        if table not in bases:
            kind = next((kind for name, kind in rows if name == table), None)
            if kind is not None:
                raise ConversionRefused(
                    f"{table!r} is a {kind}, which would run the file's own SQL; only base tables are read: {', '.join(bases[:20])}"
                )
            raise ConversionRefused(f"there is no table {table!r}; there are: {', '.join(bases[:20])}")
        return table

    def column_types(self, kept: list[str]) -> dict[str, pa.DataType]:
        """Return the Arrow type of each column, from what its cells hold. Raises ConversionRefused when a column mixes texts and numbers."""
        try:
            return {name: self._column_type(name) for name in kept}
        except sqlite3.Error as error:
            raise ConversionRefused(f"it cannot be read as SQLite: {error}") from error

    def _column_type(self, name: str) -> pa.DataType:
        column = _quote_identifier(name)
        storage = {str(row[0]) for row in self._db.execute(f"SELECT DISTINCT typeof({column}) FROM {self._quoted}")}
        missing = "null" in storage
        storage.discard("null")
        if storage == {"integer", "real"} or (storage == {"integer"} and missing):
            return pa.float64()  # as pandas reads it
        if not storage:
            return pa.null()
        if len(storage) > 1:
            words = " and ".join(sorted(storage))
            count = self._db.execute(
                f"SELECT count(*) FROM {self._quoted} WHERE typeof({column}) = {_quote_text(min(storage))}"
            ).fetchone()[0]
            raise ConversionRefused(
                f"column {name!r} mixes {words} values ({count} of them {min(storage)}); make them one kind, or drop the column"
            )
        return _ARROW_TYPES[storage.pop()]

    def iter_batches(self, types: dict[str, pa.DataType], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the kept columns, `rows` at a time. Raises ConversionRefused."""
        columns = ", ".join(_quote_identifier(name) for name in types)
        schema = pa.schema(list(types.items()))
        try:
            cursor = self._db.execute(f"SELECT {columns} FROM {self._quoted}")
            while piece := cursor.fetchmany(rows):
                arrays = [_to_arrow(values, kind) for values, kind in zip(zip(*piece, strict=True), types.values(), strict=True)]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        except (sqlite3.Error, pa.ArrowException, UnicodeError, OverflowError) as error:
            raise ConversionRefused(f"it cannot be read as SQLite: {error}") from error


def _private_copy(descriptor: int) -> mmap.mmap:
    """Return a private copy of the file's bytes. Two bytes that mark write-ahead logging are cleared: in memory there is no log."""
    if os.fstat(descriptor).st_size < len(_MAGIC):
        raise ConversionRefused("it cannot be read as SQLite: the file is too short")
    content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    if content[: len(_MAGIC)] != _MAGIC:
        raise ConversionRefused("it cannot be read as SQLite: file is not a database")
    if content[18:20] == b"\2\2":
        content[18:20] = b"\1\1"
    return content


def _to_arrow(values: tuple[_Value, ...], kind: pa.DataType) -> pa.Array:
    if pa.types.is_float64(kind):
        return pa.array([float("nan") if value is None else float(value) for value in values], kind)
    return pa.array(values, kind)


def _quote_identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _quote_text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
