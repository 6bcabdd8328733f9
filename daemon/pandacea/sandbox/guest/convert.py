"""A conversion: one source file in, one Arrow file of one batch out, and a small account of it. This box does nothing else and ends.

Everything the source can do to this process stays here: the node reads a bounded JSON and hashes the bytes.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from . import hardening, packets

_PROGRESS: Final = struct.Struct(">dd")
_PROGRESS_SECONDS: Final = 0.2
_NAME_BYTES: Final = 256
_TYPE_NAMES: Final = {
    "double": "float64",
    "float": "float32",
    "halffloat": "float16",
    "large_string": "string",
    "large_binary": "binary",
}


def run_conversion(sock: socket.socket, header: dict[str, Any], source: int, outputs: list[int]) -> None:
    """Convert, tell, and leave. `outputs`: descriptors of the scratch file and of the table, both empty and open for writing."""
    caps = header["caps"]
    room = _reserved_data_bytes() + caps["memory_bytes"]  # a MemoryError that can be told, before the kernel ends the box
    hardening.set_rlimits({"RLIMIT_CORE": 0, "RLIMIT_FSIZE": caps["table_bytes"], "RLIMIT_DATA": room})
    told: dict[str, Any]
    try:
        told = _convert(sock, header, source, outputs)
    except MemoryError:
        told = {"refused": f"it needs more memory to read than the {caps['memory_bytes']} bytes a conversion has"}
    except RecursionError:
        told = {"refused": "its metadata nests too deeply"}
    except OSError as error:
        words = os.strerror(error.errno) if error.errno else str(error)
        told = {"refused": f"the table cannot be written ({words}); a table may have {caps['table_bytes']} bytes"}
    except Exception as error:  # noqa: BLE001 - a hostile file may break a reader in any way: that is its account, and this box ends
        told = {"refused": f"its reader failed on it: {type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    text = json.dumps(told).encode("utf-8", "backslashreplace")
    for start in range(0, len(text), packets.MAX_PAYLOAD):
        packets.send(sock, packets.TABLE, text[start : start + packets.MAX_PAYLOAD])
    packets.send(sock, packets.DONE)
    sys.stdout.flush()


def _reserved_data_bytes() -> int:
    """What this process has reserved already, of what RLIMIT_DATA counts."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        line = next(line for line in file if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024


def _convert(sock: socket.socket, header: dict[str, Any], source: int, outputs: list[int]) -> dict[str, Any]:
    import pyarrow as pa

    from .arrow_batch import ConversionRefused

    try:
        return _Conversion(sock, header, source, outputs).report()
    except ConversionRefused as unfit:
        return {"refused": str(unfit)}
    except pa.ArrowMemoryError as error:
        raise MemoryError from error


class _Conversion:
    def __init__(self, sock: socket.socket, header: dict[str, Any], source: int, outputs: list[int]) -> None:
        self._sock, self._header, self._source, self._outputs = sock, header, source, outputs
        self._caps = header["caps"]
        self._last = 0.0
        self._flags: dict[str, list[str]] = {}
        self._sample_kinds: dict[str, str] = {}

    def report(self) -> dict[str, Any]:
        """The account: schema, rows, flags; or, when only looking, names and flags of a sample."""
        form = self._header["format"]
        reader = {"csv": self._read_csv, "parquet": self._read_parquet, "arrow": self._read_arrow, "sqlite": self._read_sqlite}[
            form
        ]
        names, columns, metadata = reader()
        if self._header["look"]:
            schema = [{"name": name, "type": self._sample_kinds[name], "flags": self._flags[name]} for name in names]
            return {"schema": schema, "rows": None}
        from . import arrow_batch

        arrow_batch.write_arrow_file(self._outputs[1], names, columns, metadata)
        schema = [
            {"name": name, "type": _type_name(column.kind), "missing": column.missing, "flags": self._flags.get(name, [])}
            for name, column in zip(names, columns, strict=True)
        ]
        return {"schema": schema, "rows": columns[0].rows if columns else 0}

    def _read_csv(self) -> tuple[list[str], list[Any], dict[bytes, bytes]]:
        from . import read_csv

        metadata = {b"pandacea": b'{"missing": "nan"}'}
        if self._header["types"]:
            kinds = {name: _parse_type(word) for name, word in self._header["types"].items()}
            return (
                list(kinds),
                read_csv.read_typed_csv(self._source, kinds, self._new_column),
                metadata if self._header["nan"] else {},
            )
        size = max(os.fstat(self._source).st_size, 1)
        reader = read_csv.CsvReader(self._source, self._header["separator"], lambda done: self._send_progress(done, size))
        names = self._select_columns(reader.names(self._caps["columns"]))
        if self._header["look"]:
            self._inspect_frame(reader.sample())
            return names, [], {}
        columns = reader.read(names, self._new_column, self._csv_rows(), self._flag_columns)
        return names, columns, metadata

    def _csv_rows(self) -> int:
        """Rows to a piece: as many lines as its bytes hold, judged by the start of the file."""
        os.lseek(self._source, 0, os.SEEK_SET)
        start = os.read(self._source, 1 << 20)
        each = len(start) / (start.count(b"\n") + 1)
        return _rows_per_piece(self._header["piece_bytes"], each)

    def _read_parquet(self) -> tuple[list[str], list[Any], dict[bytes, bytes]]:
        from .read_arrow import ParquetReader

        reader = ParquetReader(self._source, self._caps["table_bytes"])
        return self._read_batches(reader)

    def _read_arrow(self) -> tuple[list[str], list[Any], dict[bytes, bytes]]:
        from .read_arrow import ArrowReader

        return self._read_batches(ArrowReader(self._source))

    def _read_batches(self, reader: Any) -> tuple[list[str], list[Any], dict[bytes, bytes]]:
        from .read_arrow import reduce_pandas_metadata

        names = self._select_columns(list(reader.schema.names))
        also, metadata = reduce_pandas_metadata(reader.schema, names)
        names += also
        rows = _rows_per_piece(self._header["piece_bytes"], 16.0 * max(1, len(names)))
        batches = reader.batches(names, rows)
        if self._header["look"]:
            import pyarrow as pa

            first = next(batches, None)
            self._inspect_frame(
                first.to_pandas()
                if first is not None
                else pa.schema([reader.schema.field(n) for n in names]).empty_table().to_pandas()
            )
            return names, [], {}
        return names, self._append_batches(names, batches, reader.schema, reader.rows), metadata

    def _read_sqlite(self) -> tuple[list[str], list[Any], dict[bytes, bytes]]:
        import pyarrow as pa

        from .read_sqlite import SqliteReader

        reader = SqliteReader(self._source, self._header["table"], self._caps["memory_bytes"] // 2)
        names = self._select_columns(reader.names)
        kinds = reader.kinds(names)
        batches = reader.batches(kinds, _rows_per_piece(self._header["piece_bytes"], 64.0 * max(1, len(names))))
        if self._header["look"]:
            first = next(batches, None)
            self._inspect_frame(
                first.to_pandas() if first is not None else pa.schema(list(kinds.items())).empty_table().to_pandas()
            )
            return names, [], {}
        return names, self._append_batches(names, batches, pa.schema(list(kinds.items())), 0), {b"pandacea": b'{"missing": "nan"}'}

    def _append_batches(self, names: list[str], batches: Iterator[Any], schema: Any, total: int) -> list[Any]:
        """Columns from batches, as they come."""
        from .arrow_batch import align_batches, stored_type

        columns = [self._new_column(stored_type(schema.field(name).type)) for name in names]
        done = 0
        for batch in align_batches(batches):
            if done == 0:
                self._flag_columns(batch.slice(0, 100_000).to_pandas())
            for column, piece in zip(columns, batch.columns, strict=True):
                column.add(piece)
            done += batch.num_rows
            self._send_progress(done, max(total, done))
        return columns

    def _new_column(self, kind: Any) -> Any:
        from .arrow_batch import ColumnSpool

        return ColumnSpool(self._outputs[0], kind)

    def _select_columns(self, names: list[str]) -> list[str]:
        """The columns to keep, in the file's order. Raises Unfit: too many, twice the same, a missing one, an unusable name."""
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

    def _inspect_frame(self, frame: Any) -> None:
        import pyarrow as pa

        self._flag_columns(frame)
        for name in frame.columns:
            try:
                self._sample_kinds[str(name)] = _type_name(pa.Array.from_pandas(frame[name]).type)
            except (pa.ArrowException, TypeError, ValueError):
                self._sample_kinds[str(name)] = "mixed"

    def _flag_columns(self, frame: Any) -> None:
        from . import pii_flags

        self._flags = {str(name): pii_flags.flag_column(str(name), frame[name]) for name in frame.columns}

    def _send_progress(self, done: float, total: float) -> None:
        now = time.monotonic()
        if now - self._last >= _PROGRESS_SECONDS or done >= total:
            self._last = now
            packets.send(self._sock, packets.PROGRESS, _PROGRESS.pack(float(done), float(total)))


def _rows_per_piece(piece_bytes: int, each: float) -> int:
    return max(8, min(262_144, int(piece_bytes / max(each, 1.0)) // 8 * 8))


def _type_name(kind: Any) -> str:
    """A type as the catalogue names it."""
    text = str(kind)
    if text.startswith("dictionary<"):
        inner = str(kind.value_type)
        return f"category[{_TYPE_NAMES.get(inner, inner)}]"
    return _TYPE_NAMES.get(text, text)


def _parse_type(word: str) -> Any:
    """The Arrow type of a catalogue's word. Raises Unfit."""
    import pyarrow as pa

    from .arrow_batch import ConversionRefused

    if word.startswith("category["):
        return pa.dictionary(pa.int32(), _parse_type(word[9:-1]))
    if word == "string":
        return pa.large_string()
    if word == "binary":
        return pa.large_binary()
    if word.startswith("timestamp["):
        unit, _, zone = word[10:-1].partition(", tz=")
        return pa.timestamp(unit, zone or None)
    if word.startswith("decimal"):
        width, _, rest = word.partition("(")
        precision, scale = (int(part) for part in rest.rstrip(")").split(","))
        return (pa.decimal256 if width == "decimal256" else pa.decimal128)(precision, scale)
    if word.startswith(("list<", "large_list<", "struct<", "map<", "fixed_size_list<")):
        return pa.null()
    try:
        return pa.type_for_alias(word.replace("[day]", "").replace("[ms]", "[ms]") if word.startswith("date") else word)
    except ValueError as error:
        raise ConversionRefused(f"the type {word!r} is not known") from error
