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

from . import box, wire

_PROGRESS: Final = struct.Struct(">dd")
_EVERY: Final = 0.2
_NAME_BYTES: Final = 256
_WORDS: Final = {
    "double": "float64",
    "float": "float32",
    "halffloat": "float16",
    "large_string": "string",
    "large_binary": "binary",
}


def run(sock: socket.socket, header: dict[str, Any], source: int, outputs: list[int]) -> None:
    """Convert, tell, and leave. `outputs`: descriptors of the scratch file and of the table, both empty and open for writing."""
    caps = header["caps"]
    room = _data_bytes() + caps["memory_bytes"]  # a MemoryError that can be told, before the kernel ends the box
    box.limit({"RLIMIT_CORE": 0, "RLIMIT_FSIZE": caps["table_bytes"], "RLIMIT_DATA": room})
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
    for start in range(0, len(text), wire.MAX_PAYLOAD):
        wire.send(sock, wire.TABLE, text[start : start + wire.MAX_PAYLOAD])
    wire.send(sock, wire.DONE)
    sys.stdout.flush()


def _data_bytes() -> int:
    """What this process has reserved already, of what RLIMIT_DATA counts."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        line = next(line for line in file if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024


def _convert(sock: socket.socket, header: dict[str, Any], source: int, outputs: list[int]) -> dict[str, Any]:
    import pyarrow as pa

    from .one_batch import Unfit

    try:
        return _Conversion(sock, header, source, outputs).told()
    except Unfit as unfit:
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

    def told(self) -> dict[str, Any]:
        """The account: schema, rows, flags; or, when only looking, names and flags of a sample."""
        form = self._header["format"]
        reader = {"csv": self._csv, "parquet": self._parquet, "arrow": self._arrow, "sqlite": self._sqlite}[form]
        names, columns, metadata = reader()
        if self._header["look"]:
            schema = [{"name": name, "type": self._sample_kinds[name], "flags": self._flags[name]} for name in names]
            return {"schema": schema, "rows": None}
        from . import one_batch

        one_batch.write(self._outputs[1], names, columns, metadata)
        schema = [
            {"name": name, "type": _word(column.kind), "missing": column.missing, "flags": self._flags.get(name, [])}
            for name, column in zip(names, columns, strict=True)
        ]
        return {"schema": schema, "rows": columns[0].rows if columns else 0}

    def _csv(self) -> tuple[list[str], list[Any], dict[bytes, bytes]]:
        from . import read_csv

        metadata = {b"pandacea": b'{"missing": "nan"}'}
        if self._header["types"]:
            kinds = {name: _kind(word) for name, word in self._header["types"].items()}
            return list(kinds), read_csv.typed(self._source, kinds, self._make), metadata if self._header["nan"] else {}
        size = max(os.fstat(self._source).st_size, 1)
        reader = read_csv.CsvReader(self._source, self._header["separator"], lambda done: self._progress(done, size))
        names = self._kept(reader.names())
        if self._header["look"]:
            self._look(reader.sample())
            return names, [], {}
        columns = reader.read(names, self._make, self._csv_rows(), self._sample)
        return names, columns, metadata

    def _csv_rows(self) -> int:
        """Rows to a piece: as many lines as its bytes hold, judged by the start of the file."""
        os.lseek(self._source, 0, os.SEEK_SET)
        start = os.read(self._source, 1 << 20)
        each = len(start) / (start.count(b"\n") + 1)
        return _rows(self._header["piece_bytes"], each)

    def _parquet(self) -> tuple[list[str], list[Any], dict[bytes, bytes]]:
        from .read_arrow import ParquetReader

        reader = ParquetReader(self._source, self._caps["table_bytes"])
        return self._batches(reader)

    def _arrow(self) -> tuple[list[str], list[Any], dict[bytes, bytes]]:
        from .read_arrow import ArrowReader

        return self._batches(ArrowReader(self._source))

    def _batches(self, reader: Any) -> tuple[list[str], list[Any], dict[bytes, bytes]]:
        from .read_arrow import frame_metadata

        names = self._kept(list(reader.schema.names))
        also, metadata = frame_metadata(reader.schema, names)
        names += also
        rows = _rows(self._header["piece_bytes"], 16.0 * max(1, len(names)))
        batches = reader.batches(names, rows)
        if self._header["look"]:
            import pyarrow as pa

            first = next(batches, None)
            self._look(
                first.to_pandas()
                if first is not None
                else pa.schema([reader.schema.field(n) for n in names]).empty_table().to_pandas()
            )
            return names, [], {}
        return names, self._spooled(names, batches, reader.schema, reader.rows), metadata

    def _sqlite(self) -> tuple[list[str], list[Any], dict[bytes, bytes]]:
        import pyarrow as pa

        from .read_sqlite import SqliteReader

        reader = SqliteReader(self._source, self._header["table"])
        names = self._kept(reader.names)
        kinds = reader.kinds(names)
        batches = reader.batches(kinds, _rows(self._header["piece_bytes"], 64.0 * max(1, len(names))))
        if self._header["look"]:
            first = next(batches, None)
            self._look(first.to_pandas() if first is not None else pa.schema(list(kinds.items())).empty_table().to_pandas())
            return names, [], {}
        return names, self._spooled(names, batches, pa.schema(list(kinds.items())), 0), {b"pandacea": b'{"missing": "nan"}'}

    def _spooled(self, names: list[str], batches: Iterator[Any], schema: Any, total: int) -> list[Any]:
        """Columns from batches, as they come."""
        from .one_batch import aligned, plain

        columns = [self._make(plain(schema.field(name).type)) for name in names]
        done = 0
        for batch in aligned(batches):
            if done == 0:
                self._sample(batch.slice(0, 100_000).to_pandas())
            for column, piece in zip(columns, batch.columns, strict=True):
                column.add(piece)
            done += batch.num_rows
            self._progress(done, max(total, done))
        return columns

    def _make(self, kind: Any) -> Any:
        from .one_batch import Column

        return Column(self._outputs[0], kind)

    def _kept(self, names: list[str]) -> list[str]:
        """The columns to keep, in the file's order. Raises Unfit: too many, twice the same, a missing one, an unusable name."""
        from .one_batch import Unfit

        if len(names) > self._caps["columns"]:
            raise Unfit(f"it has {len(names)} columns; at most {self._caps['columns']} are read")
        twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) != len(names) else []
        if twice:
            raise Unfit(f"two columns are called {twice[0]!r}; rename one")
        wanted, dropped = self._header["keep"], set(self._header["drop"])
        absent = sorted({*(wanted or []), *dropped} - set(names))
        if absent:
            raise Unfit(f"there is no column {absent[0]!r}; there are: {', '.join(names[:30])}")
        kept = [name for name in names if name not in dropped and (wanted is None or name in wanted)]
        for name in kept:
            if not name or len(name.encode()) > _NAME_BYTES:
                raise Unfit(f"column {names.index(name) + 1} has no usable name (1 to {_NAME_BYTES} bytes); rename or drop it")
        if not kept:
            raise Unfit("no column is left to keep")
        return kept

    def _look(self, frame: Any) -> None:
        import pyarrow as pa

        self._sample(frame)
        for name in frame.columns:
            try:
                self._sample_kinds[str(name)] = _word(pa.Array.from_pandas(frame[name]).type)
            except (pa.ArrowException, TypeError, ValueError):
                self._sample_kinds[str(name)] = "mixed"

    def _sample(self, frame: Any) -> None:
        from . import flags

        self._flags = {str(name): flags.of(str(name), frame[name]) for name in frame.columns}

    def _progress(self, done: float, total: float) -> None:
        now = time.monotonic()
        if now - self._last >= _EVERY or done >= total:
            self._last = now
            wire.send(self._sock, wire.PROGRESS, _PROGRESS.pack(float(done), float(total)))


def _rows(piece_bytes: int, each: float) -> int:
    return max(8, min(262_144, int(piece_bytes / max(each, 1.0)) // 8 * 8))


def _word(kind: Any) -> str:
    """A type as the catalogue names it."""
    text = str(kind)
    if text.startswith("dictionary<"):
        inner = str(kind.value_type)
        return f"category[{_WORDS.get(inner, inner)}]"
    return _WORDS.get(text, text)


def _kind(word: str) -> Any:
    """The Arrow type of a catalogue's word. Raises Unfit."""
    import pyarrow as pa

    from .one_batch import Unfit

    if word.startswith("category["):
        return pa.dictionary(pa.int32(), _kind(word[9:-1]))
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
        raise Unfit(f"the type {word!r} is not known") from error
