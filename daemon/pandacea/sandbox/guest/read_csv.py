"""Read CSV as pandas does, but in pieces.

A first pass infers each column's type and spools its values; a second redoes the columns whose type changed on the way. The reference is
`pandas.read_csv(file, low_memory=False)`: a column has ONE type, inferred over all its rows.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Callable
from typing import Any, Final

import pandas as pd
import pyarrow as pa

from .arrow_batch import ColumnSpool, ConversionRefused

_RAW: Final = "S"
"""Kind of a column whose texts pandas keeps as they are, "NA" among them."""
_ARROW: Final = {
    "i": pa.int64(),
    "u": pa.uint64(),
    "f": pa.float64(),
    "b": pa.bool_(),
    "s": pa.large_string(),
    _RAW: pa.large_string(),
}
_PANDAS: Final = {"i": "int64", "u": "uint64", "f": "float64", "s": "str", _RAW: "str"}
_WHOLE: Final = r"\s*([+-]?)0*([0-9]+)\s*"
_DOUBTFUL: Final = r"\s*[+-]?[0-9]+\s*|-.*|#N/A( N/A)?|#NA|1\.#(IND|QNAN)|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null|"
"""A column of texts that begins like this may be one of numbers that pandas gave up on."""
_LARGEST: Final = {"": 2**63 - 1, "+": 2**63 - 1, "-": 2**63}
_SEPARATORS: Final = ";\t|"
_SAMPLE_ROWS: Final = 100_000
NewColumn = Callable[[pa.DataType], ColumnSpool]
"""Begins a column of an Arrow type."""


class _ColumnKinds:
    """The kinds (i, u, f, b, s) of one column's pieces; `missing`: some value is; `empty`: a whole piece is."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.missing = self.empty = False

    def add_piece(self, values: pd.Series) -> str | None:
        """Note one piece and return its kind, or None when every value is missing."""
        missing = bool(values.isna().any())
        self.missing |= missing
        if missing and bool(values.isna().all()):
            self.empty = True
            return None
        kind = _kind(values)
        self.kinds.add("?" if kind == "s" and re.fullmatch(_DOUBTFUL, str(values.iloc[0])) else kind)
        return kind

    def infer(self) -> str:
        """Return the kind that pandas infers over all rows; `?`: the texts decide (`_infer_from_texts`)."""
        kinds = self.kinds
        if not kinds:
            return "f"
        if kinds in ({"s"}, {"b"}):
            return next(iter(kinds))
        if kinds <= {"i", "f"}:
            return "f" if "f" in kinds or self.empty else "i"
        return "?" if kinds != {"u"} or self.missing else "u"


def _kind(values: pd.Series) -> str:
    if values.dtype.kind in "iufb":
        return str(values.dtype.kind)
    if values.dtype == object and set(values.dropna().map(type)) <= {bool}:
        return "b"
    return "s"


def _classes(texts: pd.Series) -> pd.Series:
    """Return the class of each text, as far as texts differ in what pandas infers from them."""
    signed = texts.str.strip().str.startswith("-").eq(True)  # the parser of unsigned numbers stops at a sign, whatever follows
    classes = pd.Series("text", index=texts.index, dtype=object)
    classes[pd.to_numeric(texts, errors="coerce").notna()] = "decimal"
    classes[signed] = "-" + classes[signed]
    classes[texts.str.strip().str.lower().isin(["true", "false"])] = "truth"
    whole = texts.str.extract(_WHOLE.join("^$"))
    is_whole = whole[1].notna()
    classes[is_whole] = "whole" + whole[0][is_whole]
    for at in whole.index[is_whole & (whole[1].str.len() >= len(str(2**63)))]:
        value = int(whole[1][at])
        classes[at] += "" if value <= _LARGEST[whole[0][at]] else " over" if value < 2**64 else " beyond"
    classes[texts.isna()] = "missing"
    return classes


class CsvReader:
    """Reads one CSV file from a descriptor."""

    def __init__(self, descriptor: int, separator: str, on_progress: Callable[[int], None]) -> None:
        self._descriptor, self._separator, self._on_progress = descriptor, separator, on_progress
        self._size = os.fstat(descriptor).st_size

    def read_names(self, max_columns: int) -> list[str]:
        """Return the header, as pandas names the columns. Raises ConversionRefused."""
        self._check_column_count(max_columns)
        try:
            names = list(self._open(nrows=0, dtype=str).columns)
        except (ValueError, OverflowError) as error:
            raise self._refusal(error) from error
        if len(names) == 1:
            other = next((mark for mark in _SEPARATORS if mark in names[0][1:-1] and mark != self._separator), None)
            if other:
                raise ConversionRefused(
                    f"line 1: the header holds no {self._separator!r} but {other!r}: state the separator of this file ({other!r}; "
                    "--separator for `products add`)"
                )
        return [str(name) for name in names]

    def _check_column_count(self, max_columns: int) -> None:
        """Refuse a file with too many columns before it is parsed: a header of a million names takes gigabytes."""
        offset = found = 0
        while data := os.pread(self._descriptor, 1 << 20, offset):
            line, end, _ = data.partition(b"\n")
            found += line.count(self._separator.encode())
            offset += len(data)
            if end:
                break
        if found >= max_columns:
            raise ConversionRefused(f"it has {found + 1} columns; at most {max_columns} are read")

    def _open(self, **options: Any) -> Any:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        file = io.BufferedReader(io.FileIO(os.dup(self._descriptor)))  # pandas' reader keeps it open
        return pd.read_csv(file, sep=self._separator, low_memory=False, **options)

    def read_sample(self) -> pd.DataFrame:
        """Return a frame of the first rows. Raises ConversionRefused."""
        try:
            piece: pd.DataFrame = self._open(nrows=_SAMPLE_ROWS)
        except (ValueError, OverflowError) as error:
            raise self._refusal(error) from error
        self._check_width(piece, 2)
        return piece

    def read_columns(
        self, kept: list[str], new_column: NewColumn, rows: int, on_sample: Callable[[pd.DataFrame], None]
    ) -> list[ColumnSpool]:
        """Return the kept columns. `rows`: of a piece, a multiple of eight. `on_sample` is called with the first rows.

        Raises:
            ConversionRefused: the file cannot be read; the message says where.
        """
        try:
            return self._read_columns(kept, new_column, rows, on_sample)
        except (ValueError, OverflowError) as error:
            raise self._refusal(error) from error

    def _read_columns(
        self, kept: list[str], new_column: NewColumn, rows: int, on_sample: Callable[[pd.DataFrame], None]
    ) -> list[ColumnSpool]:
        seen = {name: _ColumnKinds() for name in kept}
        columns: dict[str, tuple[str, ColumnSpool] | None] = dict.fromkeys(kept)
        redo: set[str] = set()
        first, last = 2, False
        for piece in self._open(chunksize=rows):
            if not len(piece):
                break
            self._check_width(piece, first)
            if first == 2:
                on_sample(piece[kept].head(_SAMPLE_ROWS))
            first += len(piece)
            last = len(piece) < rows
            for name in kept:
                kind = seen[name].add_piece(piece[name])
                if name not in redo and not _append_piece(columns, name, kind, piece[name], new_column):
                    redo.add(name)
            self._on_progress(os.lseek(self._descriptor, 0, os.SEEK_CUR) if not last else self._size)
        if first == 2:
            return [new_column(pa.null()) for _ in kept]
        kinds = {name: one.infer() for name, one in seen.items()}
        redo |= {name for name, have in columns.items() if have is None or have[0] != kinds[name]}
        kinds |= {name: self._infer_from_texts(name, rows) for name in redo if kinds[name] == "?"}
        if redo:
            columns |= self._reread_columns({name: kinds[name] for name in kept if name in redo}, new_column, rows)
        return [have[1] for have in columns.values() if have is not None]

    def _reread_columns(self, kinds: dict[str, str], new_column: NewColumn, rows: int) -> dict[str, tuple[str, ColumnSpool] | None]:
        """Read some columns once more, now that their kinds are known."""
        columns = {name: new_column(_ARROW[kind]) for name, kind in kinds.items()}
        for raw in (False, True):
            wanted = {name: kind for name, kind in kinds.items() if (kind == _RAW) is raw}
            dtypes = {name: _PANDAS[kind] for name, kind in wanted.items() if kind != "b"}
            for piece in self._open(chunksize=rows, dtype=dtypes, usecols=list(wanted), na_filter=not raw) if wanted else ():
                for name, kind in wanted.items():
                    columns[name].add_piece(_to_arrow(piece[name], kind))
                self._on_progress(os.lseek(self._descriptor, 0, os.SEEK_CUR))
        return {name: (kinds[name], column) for name, column in columns.items()}

    def _infer_from_texts(self, name: str, rows: int) -> str:
        """Have pandas infer a kind from one text of each class, in their order of appearance: nothing else affects what it infers."""
        first: dict[str, str] = {}
        for piece in self._open(chunksize=rows, dtype={name: "str"}, usecols=[name]):
            texts = piece[name]
            classes = _classes(texts)
            for at in classes.drop_duplicates().index:
                first.setdefault(classes[at], "NA" if classes[at] == "missing" else texts[at])
        one_of_each = io.StringIO()
        pd.DataFrame({"x": list(first.values())}, dtype="str").to_csv(one_of_each, index=False, quoting=csv.QUOTE_ALL)
        one_of_each.seek(0)
        inferred = pd.read_csv(one_of_each, low_memory=False)["x"]
        # Where pandas gives up on unsigned numbers it keeps the texts as they are, "NA" too.
        return _RAW if "missing" in first and inferred.notna().all() else _kind(inferred)

    def _check_width(self, piece: pd.DataFrame, first: int) -> None:
        if not isinstance(piece.index, pd.RangeIndex):
            raise ConversionRefused(
                f"line {first}: this row has more values than the header has names; name every column, or mend the row"
            )

    def _refusal(self, error: Exception) -> ConversionRefused:
        """Return a refusal that says where: pandas names the line of a bad row; a bad byte is searched for."""
        if isinstance(error, UnicodeDecodeError):
            line, column = self._find_bad_byte()
            return ConversionRefused(
                f"line {line}, column {column}: a byte that is not UTF-8; save the file as UTF-8 (iconv -f LATIN1 -t UTF-8)"
            )
        if isinstance(error, pd.errors.EmptyDataError):
            return ConversionRefused("the file is empty; it needs at least a line of column names")
        text = str(error)
        found = re.search(r"Expected (\d+) fields in line (\d+), saw (\d+)", text)
        if found:
            return ConversionRefused(
                f"line {found[2]}, column {int(found[1]) + 1}: the row has {found[3]} values where {found[1]} are expected; "
                "mend the row, or put text that holds separators in double quotes"
            )
        found = re.search(r"EOF inside string starting at row (\d+)", text)
        if found:
            return ConversionRefused(f"row {found[1]}: a double quote opens and never closes; close it, or double it inside text")
        return ConversionRefused(f"it cannot be read as CSV: {text[:300]}")

    def _find_bad_byte(self) -> tuple[int, int]:
        """Return line and column of the first byte that is not UTF-8."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        decoder = codecs.getincrementaldecoder("utf-8")()
        line, tail = 1, ""
        while data := os.read(self._descriptor, 1 << 20):
            try:
                text = decoder.decode(data)
            except UnicodeDecodeError as error:
                text = bytes(error.object)[: error.start].decode("utf-8", "replace")
                line += text.count("\n")
                return line, (tail + text).rpartition("\n")[2].count(self._separator) + 1
            line += text.count("\n")
            tail = (tail + text).rpartition("\n")[2]
        return line, tail.count(self._separator) + 1


def _append_piece(
    columns: dict[str, tuple[str, ColumnSpool] | None], name: str, kind: str | None, values: pd.Series, new_column: NewColumn
) -> bool:
    """Append a piece as the kind it was inferred to be; return False when the pieces before it were of another kind."""
    have = columns[name]
    if have is None:
        kind = kind or "f"
        have = columns[name] = (kind, new_column(_ARROW[kind]))
    elif have[0] != (kind or have[0]) or (kind is None and have[0] in "iu"):
        return False
    have[1].add_piece(_to_arrow(values, have[0]))
    return True


def _to_arrow(values: pd.Series, kind: str) -> pa.Array:
    """Return a piece in Arrow's layout; a missing number is NaN, as in the frame it came from."""
    if kind == "f":
        return pa.array(values.to_numpy("float64"), from_pandas=False)
    if values.dtype.kind == "f":  # nothing but missing values
        return pa.nulls(len(values), _ARROW[kind])
    found = pa.Array.from_pandas(values, type=_ARROW[kind])
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def read_typed_csv(descriptor: int, types: dict[str, pa.DataType], new_column: NewColumn) -> list[ColumnSpool]:
    """Read a small CSV file (a mock) with the column types of another table (the one it stands for)."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(os.dup(descriptor), "rb") as file:
        frame = pd.read_csv(file, dtype="str", keep_default_na=False, na_values=[""])
    columns = []
    for name, arrow_type in types.items():
        texts = pa.Array.from_pandas(frame[name], type=pa.large_string())
        texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        column = new_column(arrow_type)
        column.add_piece(_as_type(texts, column.arrow_type))
        columns.append(column)
    return columns


def _as_type(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return texts.cast(kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_null(kind) or pa.types.is_nested(kind):
        return pa.nulls(len(texts), kind)
    return texts.cast(kind)
