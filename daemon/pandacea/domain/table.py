"""The description of a table: its source, which columns are kept, what the columns are. It holds no value of any row."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject

MAX_COLUMNS: Final = 10_000
MAX_NAME_BYTES: Final = 256
TYPE_WORD: Final = re.compile(r"[a-z][A-Za-z0-9_\[\]<>(), :=+/-]{0,199}")
"""A column's type as the catalogue names it: `int64`, `float64`, `string`, `bool`, `category[string]`, `timestamp[ns, tz=UTC]` ..."""


class SourceFormat(StrEnum):
    """The format of an Earner's file."""

    CSV = "csv"
    PARQUET = "parquet"
    ARROW = "arrow"
    SQLITE = "sqlite"


SUFFIXES: Final[Mapping[str, SourceFormat]] = {
    ".csv": SourceFormat.CSV,
    ".tsv": SourceFormat.CSV,
    ".parquet": SourceFormat.PARQUET,
    ".arrow": SourceFormat.ARROW,
    ".feather": SourceFormat.ARROW,
    ".sqlite": SourceFormat.SQLITE,
    ".sqlite3": SourceFormat.SQLITE,
    ".db": SourceFormat.SQLITE,
}


FLAGS_VERSION: Final = 2
"""Version of the search for columns that may identify people. A new version reads every source again."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a source is turned into a table. The same bytes with the same recipe are the same version."""

    format: SourceFormat
    drop: tuple[str, ...] = ()
    keep: tuple[str, ...] | None = None
    """None: every column that is not dropped."""
    separator: str = ","
    table: str | None = None
    """A SQLite table; None: the only one."""

    def digest(self, source_sha256: str) -> str:
        """Return the sha-256 (hex) over recipe and content: it names what a conversion would give."""
        text = json.dumps(
            [source_sha256, self.format.value, sorted(self.drop), self.keep, self.separator, self.table, FLAGS_VERSION],
            ensure_ascii=False,
        )
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column as a conversion found it. `missing` and `flags` are for the Earner alone."""

    name: str
    type: str
    missing: int = 0
    """Values that are absent or NaN; exact, so it never leaves the node."""
    flags: tuple[str, ...] = ()
    """Why the column may identify people."""


class BadShape(ValueError):
    """A conversion's report cannot be used; the message says which part."""


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table's columns and exact row count (None: only its start was read)."""

    columns: tuple[TableColumn, ...]
    rows: int | None

    def to_json(self) -> JsonObject:
        """Return `schema` (a list of columns) and `rows`: a conversion's report and the node's own record. `from_json` reads it."""
        columns = [{"name": one.name, "type": one.type, "missing": one.missing, "flags": list(one.flags)} for one in self.columns]
        return {"schema": columns, "rows": self.rows}

    @classmethod
    def from_json(cls, stated: JsonMapping) -> TableShape:
        """Check and read a shape, which may come from a sandbox that read a hostile file.

        Raises:
            BadShape: a name, type or number is not what it should be.
        """
        columns, rows = stated.get("schema"), stated.get("rows")
        if not isinstance(columns, list) or not 0 < len(columns) <= MAX_COLUMNS:
            raise BadShape("the columns are missing or too many")
        if rows is not None and not _count(rows):
            raise BadShape("the row count is not a count")
        read = tuple(_column(one, rows) for one in columns)
        if len({column.name for column in read}) != len(read):
            raise BadShape("two columns have one name")
        return cls(read, rows)

    def missing_share(self, column: TableColumn) -> float:
        """Return the share of missing values as published: to the nearest tenth, so that one row more or less does not show."""
        return round(column.missing / self.rows, 1) if self.rows else 0.0


def _column(stated: object, rows: int | None) -> TableColumn:
    if not isinstance(stated, dict):
        raise BadShape("a column is not an object")
    name, kind, missing, flags = stated.get("name"), stated.get("type"), stated.get("missing", 0), stated.get("flags", [])
    if not isinstance(name, str) or not 0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_NAME_BYTES or _has_surrogate(name):
        raise BadShape("a column has no usable name")
    if not isinstance(kind, str) or not TYPE_WORD.fullmatch(kind):
        raise BadShape(f"the type of {name!r} is not a type")
    if not _count(missing) or (rows is not None and missing > rows):
        raise BadShape(f"the missing values of {name!r} are not a count")
    if not isinstance(flags, list) or not all(isinstance(flag, str) and len(flag) <= 200 for flag in flags[:20]):
        raise BadShape(f"the flags of {name!r} are not texts")
    return TableColumn(name, kind, missing, tuple(flags[:20]))


def _has_surrogate(text: str) -> bool:
    """Return whether a text has half of a surrogate pair: it cannot be encoded, so nothing that holds it can be signed or sent."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


@dataclass(frozen=True, slots=True)
class ColumnDescription:
    """What the Earner states about a column: it is published, and the only source of mock values."""

    unit: str = ""
    description: str = ""
    minimum: float | str | None = None
    maximum: float | str | None = None
    """Ends of a range of plausible values, not the extremes of the table. Texts are ISO 8601 dates or times."""
    categories: tuple[str, ...] = ()
    missing: float | None = None
    """Share of missing values in the mock; None: the table's, rounded."""
    label: bool = False
    """The outcome that scripts are to predict."""

    def as_json(self) -> JsonObject:
        """Return the description as published: only what was stated."""
        stated: JsonObject = {
            "unit": self.unit,
            "description": self.description,
            "minimum": self.minimum,
            "maximum": self.maximum,
            "categories": list(self.categories),
            "label": self.label,
        }
        return {key: value for key, value in stated.items() if value not in ("", None, []) and value is not False}


@dataclass(frozen=True, slots=True)
class DeclaredAsset:
    """One asset of a product as its Earner declares it. `columns`, `mock_rows` and `mock_seed` determine the mock rows."""

    source: Path
    """A file beneath the data folder."""
    recipe: Recipe
    columns: Mapping[str, ColumnDescription] = field(default_factory=dict)
    keep_flagged: tuple[str, ...] = ()
    """Columns that seem to identify people and that the Earner keeps by name all the same."""
    description: str = ""
    mock_rows: int = 100
    mock_seed: int = 0


def find_undecided_columns(shape: TableShape, declared: DeclaredAsset) -> list[TableColumn]:
    """Return the columns that may identify people and that the Earner does not keep by name."""
    named = {*declared.keep_flagged, *(declared.recipe.keep or ())}
    return [column for column in shape.columns if column.flags and column.name not in named]
