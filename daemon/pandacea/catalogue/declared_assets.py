"""Read the assets of products.yaml: which file, which columns, what the Earner declares about them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Final

from pandacea.catalogue.mock import MAX_ROWS
from pandacea.domain.ids import ASSET_ID
from pandacea.domain.table import SUFFIXES, ColumnDescription, DeclaredAsset, Recipe, SourceFormat
from pandacea.errors import BadConfig
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject

KEYS: Final = ("file", "format", "drop", "keep", "keep_flagged", "separator", "table", "description", "columns", "mock")
COLUMN_KEYS: Final = ("unit", "description", "minimum", "maximum", "categories", "missing", "label")
MOCK_KEYS: Final = ("rows", "seed")
_TEXT_CHARACTERS: Final = 1000
_PACKED: Final = "unpack it first"
_INSTEAD: Final = {
    **dict.fromkeys((".gz", ".zip", ".bz2", ".xz", ".zst"), _PACKED),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save its sheet as CSV first"),
}
"""What to do with common files that the node does not read, by their endings."""


class BadAsset(BadConfig):
    """An asset of products.yaml cannot be used."""


def parse_asset(asset_id: str, given: object, data_dir: Path) -> DeclaredAsset:
    """Read one asset: nothing, a file name, or a mapping.

    Raises:
        BadAsset: a key, a value or the file is missing or bad; the sentence begins with what it is about.
    """
    if not ASSET_ID.fullmatch(asset_id):
        raise BadAsset(f"the asset id {asset_id!r} must match {ASSET_ID.pattern}.")
    entry = _check_keys({"file": given} if isinstance(given, str) else given or {}, KEYS, f"asset {asset_id}")
    source = _file(asset_id, entry.get("file"), data_dir)
    mock = _check_keys(entry.get("mock") or {}, MOCK_KEYS, f"asset {asset_id}.mock")
    columns = entry.get("columns") or {}
    if not isinstance(columns, dict):
        raise BadAsset(f"asset {asset_id}.columns must map column names to what they hold.")
    return DeclaredAsset(
        source=source,
        recipe=_recipe(asset_id, entry, source),
        columns={str(name): parse_description(f"asset {asset_id}.columns.{name}", given or {}) for name, given in columns.items()},
        keep_flagged=_names(f"asset {asset_id}.keep_flagged", entry.get("keep_flagged")) or (),
        description=_text(f"asset {asset_id}.description", entry.get("description", "")),
        mock_rows=_count(f"asset {asset_id}.mock.rows", mock.get("rows", 100), MAX_ROWS),
        mock_seed=_count(f"asset {asset_id}.mock.seed", mock.get("seed", 0), 2**32),
    )


def parse_description(where: str, given: object) -> ColumnDescription:
    """Read what an Earner declares about one column. Raises BadAsset."""
    entry = _check_keys(given, COLUMN_KEYS, where)
    low, high = (_bound(f"{where}.{key}", entry.get(key)) for key in ("minimum", "maximum"))
    if low is not None and high is not None and _is_reversed(low, high):
        raise BadAsset(f"{where}: minimum {low!r} is above maximum {high!r}, or one is a date and the other a number.")
    categories = entry.get("categories") or []
    if not isinstance(categories, list) or not all(isinstance(one, str | int | float) for one in categories):
        raise BadAsset(f"{where}.categories must be a list of texts.")
    missing = entry.get("missing")
    if missing is not None and (isinstance(missing, bool) or not isinstance(missing, int | float) or not 0 <= missing <= 1):
        raise BadAsset(f"{where}.missing is {missing!r}; it is a share: from 0 to 1.")
    if not isinstance(entry.get("label", False), bool):
        raise BadAsset(f"{where}.label is {entry['label']!r}; allowed: true, false.")
    return ColumnDescription(
        unit=_text(f"{where}.unit", entry.get("unit", "")),
        description=_text(f"{where}.description", entry.get("description", "")),
        minimum=low,
        maximum=high,
        categories=tuple(str(one) for one in categories),
        missing=None if missing is None else float(missing),
        label=entry.get("label", False),
    )


def _is_reversed(low: float | str, high: float | str) -> bool:
    """Whether two bounds are of two kinds or in the wrong order; ISO 8601 texts sort by time."""
    if isinstance(low, str) or isinstance(high, str):
        return not (isinstance(low, str) and isinstance(high, str)) or low > high
    return low > high


def _check_keys(entry: object, keys: tuple[str, ...], where: str) -> JsonObject:
    """Return a mapping that has no other keys than these. Raises BadAsset."""
    if not isinstance(entry, dict):
        raise BadAsset(f"{where} must be a mapping with the keys {', '.join(keys)}.")
    for key in entry:
        if key not in keys:
            raise BadAsset(f"{where}.{key} is not a key; allowed here: {', '.join(keys)}.")
    return entry


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > _TEXT_CHARACTERS:
        raise BadAsset(f"{where} must be text of at most {_TEXT_CHARACTERS} characters.")
    return value


def _count(where: str, value: object, maximum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
        raise BadAsset(f"{where} is {value!r}; it must be a whole number from 0 to {maximum}.")
    return value


def _bound(where: str, value: object) -> float | str | None:
    if isinstance(value, dt.date):  # YAML reads an unquoted date as one
        return value.isoformat()
    if isinstance(value, str):
        try:
            dt.datetime.fromisoformat(value)
        except ValueError:
            raise BadAsset(f"{where} is {value!r}; it must be a number or an ISO 8601 date, for example 2020-01-31.") from None
        return value
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise BadAsset(f"{where} is {value!r}; it must be a number or an ISO 8601 date.")
    return value


def _recipe(asset_id: str, entry: JsonMapping, source: Path) -> Recipe:
    where = f"asset {asset_id}"
    given = entry.get("format")
    try:
        source_format = SourceFormat(given) if given is not None else SUFFIXES[source.suffix.lower()]
    except (ValueError, KeyError):
        hint = _INSTEAD.get(source.suffix.lower(), f"or state its format (--format for `products add`): {', '.join(SourceFormat)}")
        raise BadAsset(f"{where}: {source.name} is not a table this node reads; endings: {', '.join(SUFFIXES)}; {hint}.") from None
    separator = entry.get("separator", "\t" if source.suffix.lower() == ".tsv" else ",")
    if not isinstance(separator, str) or len(separator) != 1 or separator in '"\n\r':
        raise BadAsset(f"{where}.separator is {separator!r}; it must be one character.")
    drop, keep = (_names(f"{where}.{key}", entry.get(key)) for key in ("drop", "keep"))
    table = entry.get("table")
    if table is not None and not isinstance(table, str):
        raise BadAsset(f"{where}.table is {table!r}; it must be the name of a table in the file.")
    return Recipe(source_format, drop or (), keep, separator, table)


def _names(where: str, value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise BadAsset(f"{where} must be a list of column names.")
    return tuple(value)


def _file(asset_id: str, name: object, data_dir: Path) -> Path:
    if name is not None and (not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts):
        raise BadAsset(f"asset {asset_id}.file is {name!r}; it must be a file's name in {data_dir}.")
    names = [name] if name else [asset_id + suffix for suffix in SUFFIXES]
    for candidate in names:
        if _exists(data_dir / candidate):
            return data_dir / candidate
    shown = names[0] if len(names) == 1 else f"{names[0]} or {names[1]}"
    raise BadAsset(f"asset {asset_id} has no file {shown} in {data_dir}. Put it there, or mend the id.")


def _exists(path: Path) -> bool:
    """Whether the folder has this name; a dangling link counts."""
    return path.exists() or path.is_symlink()
