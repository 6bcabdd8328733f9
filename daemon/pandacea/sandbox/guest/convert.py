"""Convert one source file to one Arrow file of one batch and report what it holds. The sandbox does nothing else and ends.

Whatever the source does to this process stays in this sandbox: the node reads a bounded JSON report and hashes the table's bytes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from . import hardening, packets
from .packets import JsonObject

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from .arrow_batch import ColumnSpool
    from .read_arrow import ArrowReader, ParquetReader

_PROGRESS_SECONDS: Final = 0.2
"""The shortest time between two reports of progress."""
_NAME_BYTES: Final = 256
_SAMPLE_ROWS: Final = 100_000
"""Rows in which columns that may identify people are looked for."""
_MAX_PIECE_ROWS: Final = 262_144
_MISSING_AS_NAN: Final = {b"pandacea": b'{"missing": "nan"}'}
"""Metadata of a table that came from text: a missing value is NaN in the script's frame."""
_TYPE_NAMES: Final = {
    "double": "float64",
    "float": "float32",
    "halffloat": "float16",
    "large_string": "string",
    "large_binary": "binary",
}


class _Table(NamedTuple):
    """What a reader made of the source; `columns` is empty when only its start was inspected."""

    names: list[str]
    columns: list[ColumnSpool]
    metadata: dict[bytes, bytes]


def run_conversion(sock: socket.socket, header: JsonObject, source: int, outputs: list[int]) -> None:
    """Convert, send the report, and return. `outputs`: descriptors of the scratch file and of the table, both empty and writable."""
    caps = header["caps"]
    max_data_bytes = _reserved_data_bytes() + caps["memory_bytes"]  # a MemoryError that can be reported, before the kernel kills
    hardening.set_rlimits({"RLIMIT_CORE": 0, "RLIMIT_FSIZE": caps["table_bytes"], "RLIMIT_DATA": max_data_bytes})
    report: JsonObject
    try:
        report = _convert(sock, header, source, outputs)
    except MemoryError:
        report = {"refused": f"it needs more memory to read than the {caps['memory_bytes']} bytes a conversion has"}
    except RecursionError:
        report = {"refused": "its metadata nests too deeply"}
    except OSError as error:
        words = os.strerror(error.errno) if error.errno else str(error)
        report = {"refused": f"the table cannot be written ({words}); a table may have {caps['table_bytes']} bytes"}
    except Exception as error:  # noqa: BLE001 - a hostile file may break a reader in any way: that is reported, and this sandbox ends
        report = {"refused": f"its reader failed on it: {type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    text = json.dumps(report).encode("utf-8", "backslashreplace")
    for start in range(0, len(text), packets.MAX_PAYLOAD):
        packets.send(sock, packets.TABLE, text[start : start + packets.MAX_PAYLOAD])
    packets.send(sock, packets.DONE)
    sys.stdout.flush()


def _reserved_data_bytes() -> int:
    """Return what this process has reserved already of what RLIMIT_DATA counts."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        line = next(line for line in file if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024


def _convert(sock: socket.socket, header: JsonObject, source: int, outputs: list[int]) -> JsonObject:
    import pyarrow as pa

    from .arrow_batch import ConversionRefused

    try:
        return _Conversion(sock, header, source, outputs).report()
    except ConversionRefused as refused:
        return {"refused": str(refused)}
    except pa.ArrowMemoryError as error:
        raise MemoryError from error


class _Conversion:
    def __init__(self, sock: socket.socket, header: JsonObject, source: int, outputs: list[int]) -> None:
        self._sock, self._header, self._source, self._outputs = sock, header, source, outputs
        self._caps = header["caps"]
        self._progress_sent_at = 0.0
        self._flags: dict[str, list[str]] = {}
        self._sample_types: dict[str, str] = {}

    def report(self) -> JsonObject:
        """Return the report: schema, rows, flags; or, when the source is only inspected, names, types and flags of a sample."""
        readers = {"csv": self._read_csv, "parquet": self._read_parquet, "arrow": self._read_arrow, "sqlite": self._read_sqlite}
        table = readers[self._header["format"]]()
        schema: list[JsonObject]
        if self._header["look"]:
            schema = [{"name": name, "type": self._sample_types[name], "flags": self._flags[name]} for name in table.names]
            return {"schema": schema, "rows": None}
        from .arrow_batch import write_arrow_file

        write_arrow_file(self._outputs[1], table.names, table.columns, table.metadata)
        schema = [
            {
                "name": name,
                "type": _type_name(column.arrow_type),
                "missing": column.missing,
                "flags": self._flags.get(name, []),
            }
            for name, column in zip(table.names, table.columns, strict=True)
        ]
        return {"schema": schema, "rows": table.columns[0].rows if table.columns else 0}

    def _read_csv(self) -> _Table:
        from .read_csv import CsvReader, read_typed_csv

        if self._header["types"]:
            types = {name: _parse_type(word) for name, word in self._header["types"].items()}
            columns = read_typed_csv(self._source, types, self._new_column)
            return _Table(list(types), columns, _MISSING_AS_NAN if self._header["nan"] else {})
        size = max(os.fstat(self._source).st_size, 1)
        reader = CsvReader(self._source, self._header["separator"], lambda done: self._send_progress(done, size))
        names = self._select_columns(reader.read_names(self._caps["columns"]))
        if self._header["look"]:
            self._inspect_frame(reader.read_sample())
            return _Table(names, [], {})
        columns = reader.read_columns(names, self._new_column, self._csv_piece_rows(), self._flag_columns)
        return _Table(names, columns, _MISSING_AS_NAN)

    def _csv_piece_rows(self) -> int:
        """Return how many rows make a piece: as many lines as fit, judged by the start of the file."""
        os.lseek(self._source, 0, os.SEEK_SET)
        start = os.read(self._source, 1 << 20)
        line_bytes = len(start) / (start.count(b"\n") + 1)
        return _rows_per_piece(self._header["piece_bytes"], line_bytes)

    def _read_parquet(self) -> _Table:
        from .read_arrow import ParquetReader

        return self._read_batches(ParquetReader(self._source, self._caps["table_bytes"]))

    def _read_arrow(self) -> _Table:
        from .read_arrow import ArrowReader

        return self._read_batches(ArrowReader(self._source))

    def _read_batches(self, reader: ParquetReader | ArrowReader) -> _Table:
        from .read_arrow import reduce_pandas_metadata

        names = self._select_columns(list(reader.schema.names))
        index_columns, metadata = reduce_pandas_metadata(reader.schema, names)
        names += index_columns
        batches = reader.iter_batches(names, _rows_per_piece(self._header["piece_bytes"], 16.0 * max(1, len(names))))
        if self._header["look"]:
            self._inspect_first(batches, [reader.schema.field(name) for name in names])
            return _Table(names, [], {})
        return _Table(names, self._append_batches(names, batches, reader.schema, reader.rows), metadata)

    def _read_sqlite(self) -> _Table:
        import pyarrow as pa

        from .read_sqlite import SqliteReader

        reader = SqliteReader(self._source, self._header["table"], self._caps["memory_bytes"] // 2)
        names = self._select_columns(reader.names)
        types = reader.column_types(names)
        batches = reader.iter_batches(types, _rows_per_piece(self._header["piece_bytes"], 64.0 * max(1, len(names))))
        if self._header["look"]:
            self._inspect_first(batches, list(types.items()))
            return _Table(names, [], {})
        columns = self._append_batches(names, batches, pa.schema(list(types.items())), 0)
        return _Table(names, columns, _MISSING_AS_NAN)

    def _append_batches(
        self, names: list[str], batches: Iterator[pa.RecordBatch], schema: pa.Schema, total: int
    ) -> list[ColumnSpool]:
        """Spool batches, as they come, to one column each."""
        from .arrow_batch import align_batches, stored_type

        columns = [self._new_column(stored_type(schema.field(name).type)) for name in names]
        done = 0
        for batch in align_batches(batches):
            if done == 0:
                self._flag_columns(batch.slice(0, _SAMPLE_ROWS).to_pandas())
            for column, piece in zip(columns, batch.columns, strict=True):
                column.add_piece(piece)
            done += batch.num_rows
            self._send_progress(done, max(total, done))
        return columns

    def _new_column(self, arrow_type: pa.DataType) -> ColumnSpool:
        from .arrow_batch import ColumnSpool

        return ColumnSpool(self._outputs[0], arrow_type)

    def _select_columns(self, names: list[str]) -> list[str]:
        """Return the columns to keep, in the file's order.

        Raises:
            ConversionRefused: too many columns, one twice, one that is asked for and missing, or a name that cannot be used.
        """
        from .arrow_batch import ConversionRefused

        if len(names) > self._caps["columns"]:
            raise ConversionRefused(f"it has {len(names)} columns; at most {self._caps['columns']} are read")
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) != len(names) else []
        if twice:
            raise ConversionRefused(f"two columns are called {twice[0]!r}; rename one")
        wanted, dropped = self._header["keep"], set(self._header["drop"])
        absent = sorted({*(wanted or []), *dropped} - set(names))
        if absent:
            raise ConversionRefused(f"there is no column {absent[0]!r}; there are: {', '.join(names[:30])}")
        kept = [name for name in names if name not in dropped and (wanted is None or name in wanted)]
        for name in kept:
            if not name or len(name.encode()) > _NAME_BYTES:
                raise ConversionRefused(
                    f"column {names.index(name) + 1} has no usable name (1 to {_NAME_BYTES} bytes); rename or drop it"
                )
        if not kept:
            raise ConversionRefused("no column is left to keep")
        return kept

    def _inspect_first(self, batches: Iterator[pa.RecordBatch], fields: list[pa.Field | tuple[str, pa.DataType]]) -> None:
        """Inspect the first batch, or an empty frame of these fields when there is none."""
        import pyarrow as pa

        first = next(batches, None)
        self._inspect_frame((pa.schema(fields).empty_table() if first is None else first).to_pandas())

    def _inspect_frame(self, frame: pd.DataFrame) -> None:
        """Note types and flags of a sample's columns."""
        import pyarrow as pa

        self._flag_columns(frame)
        for name in frame.columns:
            try:
                self._sample_types[str(name)] = _type_name(pa.Array.from_pandas(frame[name]).type)
            except (pa.ArrowException, TypeError, ValueError):
                self._sample_types[str(name)] = "mixed"

    def _flag_columns(self, frame: pd.DataFrame) -> None:
        from .pii_flags import flag_column

        self._flags = {str(name): flag_column(str(name), frame[name]) for name in frame.columns}

    def _send_progress(self, done: float, total: float) -> None:
        now = time.monotonic()
        if now - self._progress_sent_at >= _PROGRESS_SECONDS or done >= total:
            self._progress_sent_at = now
            packets.send(self._sock, packets.PROGRESS, packets.PROGRESS_PAIR.pack(float(done), float(total)))


def _rows_per_piece(piece_bytes: int, row_bytes: float) -> int:
    """Return a multiple of eight."""
    return max(8, min(_MAX_PIECE_ROWS, int(piece_bytes / max(row_bytes, 1.0)) // 8 * 8))


def _type_name(arrow_type: pa.DataType) -> str:
    """Return a type's name in the catalogue."""
    text = str(arrow_type)
    if text.startswith("dictionary<"):
        inner = str(arrow_type.value_type)
        return f"category[{_TYPE_NAMES.get(inner, inner)}]"
    return _TYPE_NAMES.get(text, text)


def _parse_type(name: str) -> pa.DataType:
    """Return the Arrow type of a catalogue's name. Raises ConversionRefused."""
    import pyarrow as pa

    from .arrow_batch import ConversionRefused

    if name.startswith("category["):
        return pa.dictionary(pa.int32(), _parse_type(name[9:-1]))
    if name == "string":
        return pa.large_string()
    if name == "binary":
        return pa.large_binary()
    if name.startswith("timestamp["):
        unit, _, zone = name[10:-1].partition(", tz=")
        return pa.timestamp(unit, zone or None)
    if name.startswith("decimal"):
        width, _, rest = name.partition("(")
        precision, scale = (int(part) for part in rest.rstrip(")").split(","))
        return (pa.decimal256 if width == "decimal256" else pa.decimal128)(precision, scale)
    if name.startswith(("list<", "large_list<", "struct<", "map<", "fixed_size_list<")):
        return pa.null()
    try:
        return pa.type_for_alias(name.replace("[day]", "") if name.startswith("date") else name)
    except ValueError as error:
        raise ConversionRefused(f"the type {name!r} is not known") from error
