"""CSV as pandas reads it, in pieces: one pass decides each column's type and keeps its values; a second mends the columns that changed.

The reference is `pandas.read_csv(file, low_memory=False)`: a column has ONE type, inferred over all its rows.
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
_SIZES: Final = {"": 2**63 - 1, "+": 2**63 - 1, "-": 2**63}
_SEPARATORS: Final = ";\t|"
Keep = Callable[[list[str]], list[str]]
Progress = Callable[[int], None]


class _ColumnKinds:
    """What the pieces of one column were: kinds i, u, f, b, s; `missing` and `empty` (a piece of nothing but missing values)."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.missing = self.empty = False

    def add_piece(self, values: Any) -> str | None:
        """Note one piece; its kind, or None when every value is missing."""
        missing = bool(values.isna().any())
        self.missing |= missing
        if missing and bool(values.isna().all()):
            self.empty = True
            return None
        kind = _kind(values)
        self.kinds.add("?" if kind == "s" and re.fullmatch(_DOUBTFUL, str(values.iloc[0])) else kind)
        return kind

    def infer(self) -> str:
        """The kind pandas infers over all rows; `?` when the texts must be looked at."""
        kinds = self.kinds
        if not kinds:
            return "f"
        if kinds in ({"s"}, {"b"}):
            return next(iter(kinds))
        if kinds <= {"i", "f"}:
            return "f" if "f" in kinds or self.empty else "i"
        return "?" if kinds != {"u"} or self.missing else "u"


def _kind(values: Any) -> str:
    if values.dtype.kind in "iufb":
        return str(values.dtype.kind)
    if values.dtype == object and values.dropna().map(type).eq(bool).all():
        return "b"
    return "s"


def _classes(texts: Any) -> Any:
    """The class of each text, as far as pandas' choice of a type can tell texts apart."""
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
        classes[at] += "" if value <= _SIZES[whole[0][at]] else " over" if value < 2**64 else " beyond"
    classes[texts.isna()] = "missing"
    return classes


class CsvReader:
    """One CSV file behind a descriptor."""

    def __init__(self, descriptor: int, separator: str, progress: Progress) -> None:
        self._descriptor, self._separator, self._progress = descriptor, separator, progress
        self._size = os.fstat(descriptor).st_size

    def names(self, max_columns: int) -> list[str]:
        """The header, as pandas names the columns, of which there may be `most`. Raises Unfit."""
        self._check_column_count(max_columns)
        try:
            names = list(self._open(nrows=0, dtype=str).columns)
        except (ValueError, OverflowError) as error:
            raise self._unfit(error) from error
        if len(names) == 1:
            other = next((mark for mark in _SEPARATORS if mark in names[0][1:-1] and mark != self._separator), None)
            if other:
                raise ConversionRefused(
                    f"line 1: the header holds no {self._separator!r} but {other!r}: state the separator of this file ({other!r}; --separator for `products add`)"
                )
        return [str(name) for name in names]

    def _check_column_count(self, most: int) -> None:
        """Count before parsing: a header of a million names takes gigabytes to hold."""
        offset = found = 0
        while data := os.pread(self._descriptor, 1 << 20, offset):
            line, end, _ = data.partition(b"\n")
            found += line.count(self._separator.encode())
            offset += len(data)
            if end:
                break
        if found >= most:
            raise ConversionRefused(f"it has {found + 1} columns; at most {most} are read")

    def _open(self, **options: Any) -> Any:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        file = open(os.dup(self._descriptor), "rb")  # noqa: SIM115 - there is no path; pandas' reader keeps it open
        return pd.read_csv(file, sep=self._separator, low_memory=False, **options)

    def sample(self) -> Any:
        """The first rows. Raises Unfit."""
        try:
            piece = self._open(nrows=100_000)
        except (ValueError, OverflowError) as error:
            raise self._unfit(error) from error
        self._check(piece, 2)
        return piece

    def read(
        self, kept: list[str], make: Callable[[Any], ColumnSpool], rows: int, sample: Callable[[Any], None]
    ) -> list[ColumnSpool]:
        """The kept columns; `make` begins a column of a type, `rows` (a multiple of eight) is a piece, `sample` sees the first one."""
        try:
            return self._read(kept, make, rows, sample)
        except (ValueError, OverflowError) as error:
            raise self._unfit(error) from error

    def _read(
        self, kept: list[str], make: Callable[[Any], ColumnSpool], rows: int, sample: Callable[[Any], None]
    ) -> list[ColumnSpool]:
        seen = {name: _ColumnKinds() for name in kept}
        columns: dict[str, tuple[str, ColumnSpool] | None] = dict.fromkeys(kept)
        redo: set[str] = set()
        first, last = 2, False
        for piece in self._open(chunksize=rows):
            if not len(piece):
                break
            self._check(piece, first)
            if first == 2:
                sample(piece[kept].head(100_000))
            first += len(piece)
            last = len(piece) < rows
            for name in kept:
                kind = seen[name].add_piece(piece[name])
                if name not in redo and not _append_piece(columns, name, kind, piece[name], make):
                    redo.add(name)
            self._progress(os.lseek(self._descriptor, 0, os.SEEK_CUR) if not last else self._size)
        if first == 2:
            return [make(pa.null()) for _ in kept]
        kinds = {name: one.infer() for name, one in seen.items()}
        redo |= {name for name, have in columns.items() if have is None or have[0] != kinds[name]}
        kinds |= {name: self._infer_from_texts(name, rows) for name in redo if kinds[name] == "?"}
        if redo:
            columns |= self._reread_columns({name: kinds[name] for name in kept if name in redo}, make, rows)
        return [have[1] for have in columns.values() if have is not None]

    def _reread_columns(
        self, kinds: dict[str, str], make: Callable[[Any], ColumnSpool], rows: int
    ) -> dict[str, tuple[str, ColumnSpool] | None]:
        """Read some columns once more, now that their types are known."""
        columns = {name: make(_ARROW[kind]) for name, kind in kinds.items()}
        for raw in (False, True):
            wanted = {name: kind for name, kind in kinds.items() if (kind == _RAW) is raw}
            dtypes = {name: _PANDAS[kind] for name, kind in wanted.items() if kind != "b"}
            for piece in self._open(chunksize=rows, dtype=dtypes, usecols=list(wanted), na_filter=not raw) if wanted else ():
                for name, kind in wanted.items():
                    columns[name].add(_to_arrow(piece[name], kind))
                self._progress(os.lseek(self._descriptor, 0, os.SEEK_CUR))
        return {name: (kinds[name], column) for name, column in columns.items()}

    def _infer_from_texts(self, name: str, rows: int) -> str:
        """Ask pandas about one text of each class, in the order in which the classes appear: nothing else counts for its choice."""
        first: dict[str, str] = {}
        for piece in self._open(chunksize=rows, dtype={name: "str"}, usecols=[name]):
            texts = piece[name]
            classes = _classes(texts)
            for at in classes.drop_duplicates().index:
                first.setdefault(classes[at], "NA" if classes[at] == "missing" else texts[at])
        asked = io.StringIO()
        pd.DataFrame({"x": list(first.values())}, dtype="str").to_csv(asked, index=False, quoting=csv.QUOTE_ALL)
        asked.seek(0)
        answer = pd.read_csv(asked, low_memory=False)["x"]
        # Where pandas gives up on unsigned numbers it keeps the texts as they are, "NA" too.
        return _RAW if "missing" in first and answer.notna().all() else _kind(answer)

    def _check(self, piece: Any, first: int) -> None:
        if not isinstance(piece.index, pd.RangeIndex):
            raise ConversionRefused(
                f"line {first}: this row has more values than the header has names; name every column, or mend the row"
            )

    def _unfit(self, error: Exception) -> ConversionRefused:
        """Say where: pandas names the line of a bad row; a bad byte is looked for."""
        if isinstance(error, UnicodeDecodeError):
            line, column = self._bad_byte()
            return ConversionRefused(
                f"line {line}, column {column}: a byte that is no UTF-8; save the file as UTF-8 (iconv -f LATIN1 -t UTF-8)"
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

    def _bad_byte(self) -> tuple[int, int]:
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


def _append_piece(columns: dict[str, Any], name: str, kind: str | None, values: Any, make: Callable[[Any], ColumnSpool]) -> bool:
    """Keep a piece as what it was inferred to be; False when it does not go with the pieces before it."""
    have = columns[name]
    if have is None:
        kind = kind or "f"
        have = columns[name] = (kind, make(_ARROW[kind]))
    elif have[0] != (kind or have[0]) or (kind is None and have[0] in "iu"):
        return False
    have[1].add(_to_arrow(values, have[0]))
    return True


def _to_arrow(values: Any, kind: str) -> Any:
    """A piece in Arrow's layout; a missing number is NaN, as in the frame it came from."""
    if kind == "f":
        return pa.array(values.to_numpy("float64"), from_pandas=False)
    if values.dtype.kind == "f":  # nothing but missing values
        return pa.nulls(len(values), _ARROW[kind])
    found = pa.Array.from_pandas(values, type=_ARROW[kind])
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def read_typed_csv(descriptor: int, kinds: dict[str, Any], make: Callable[[Any], ColumnSpool]) -> list[ColumnSpool]:
    """A small CSV file read as the types of another table: what a mock is, beside the table it stands for."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    with open(os.dup(descriptor), "rb") as file:
        frame = pd.read_csv(file, dtype="str", keep_default_na=False, na_values=[""])
    columns = []
    for name, kind in kinds.items():
        texts = pa.Array.from_pandas(frame[name], type=pa.large_string())
        texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
        column = make(kind)
        column.add(_as_type(texts, column.kind))
        columns.append(column)
    return columns


def _as_type(texts: Any, kind: Any) -> Any:
    if pa.types.is_dictionary(kind):
        return texts.cast(kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_null(kind) or pa.types.is_nested(kind):
        return pa.nulls(len(texts), kind)
    return texts.cast(kind)
