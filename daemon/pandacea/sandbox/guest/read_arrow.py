"""Read Parquet and Arrow files: every batch is validated in full; foreign metadata and extension types are left out."""

from __future__ import annotations

import io
import json
import mmap
import os
import re
from collections.abc import Iterator
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from .arrow_batch import ConversionRefused, stored_type
from .packets import JsonObject

_DTYPE: Final = re.compile(
    r"object|str|string(\[[a-z_]+\])?|category|bool(ean)?|u?int(8|16|32|64)|U?Int(8|16|32|64)|[fF]loat(16|32|64)"
    r"|(datetime64|timedelta64)\[[a-z, A-Z/_+:0-9-]+\]|[a-z0-9_]+(\[[a-z, A-Z/_+:0-9-]+\])?\[pyarrow\]"
)
"""Names of the pandas types that a file's metadata may ask for: those that need only pandas and pyarrow."""


class ParquetReader:
    """Reads one Parquet file from a descriptor."""

    def __init__(self, descriptor: int, max_bytes: int) -> None:
        try:
            source = io.BufferedReader(io.FileIO(os.dup(descriptor)))  # lives as long as the reader
            self._file = pq.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
            self.schema = self._file.schema_arrow
            self.rows = self._file.metadata.num_rows
            groups = self._file.metadata.num_row_groups
            promised = sum(self._file.metadata.row_group(group).total_byte_size for group in range(groups))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ConversionRefused(f"it cannot be read as Parquet: {_describe_error(error)}") from error
        if promised > max_bytes:
            raise ConversionRefused(f"its row groups unpack to {promised} bytes, more than the {max_bytes} a table may have")

    def iter_batches(self, kept: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the kept columns, `rows` at a time. Raises ConversionRefused."""
        done = 0
        try:
            for batch in self._file.iter_batches(batch_size=rows, columns=kept, use_threads=False):
                done += batch.num_rows
                yield _validate_batch(batch, kept)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise ConversionRefused(f"after row {done} it cannot be read as Parquet: {_describe_error(error)}") from error


class ArrowReader:
    """Reads one Arrow IPC file (Feather version 2) or stream from a descriptor."""

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        if size == 0:
            raise ConversionRefused("the file is empty")
        source = pa.BufferReader(pa.py_buffer(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)))
        try:
            if source.read(6) == b"ARROW1":
                source.seek(0)
                self._file = pa.ipc.open_file(source)
                self._stream = None
            else:
                source.seek(0)
                self._stream = pa.ipc.open_stream(source)
            self.schema = (self._stream or self._file).schema
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ConversionRefused(f"it cannot be read as Arrow: {_describe_error(error)}") from error
        self.rows = 0

    def iter_batches(self, kept: list[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield the kept columns, `rows` at a time. Raises ConversionRefused."""
        done = 0
        try:
            for batch in self._all():
                batch.validate(full=True)
                for start in range(0, batch.num_rows, rows):
                    part = batch.slice(start, rows).select(kept)
                    done += part.num_rows
                    yield _validate_batch(part, kept)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise ConversionRefused(f"after row {done} it cannot be read as Arrow: {_describe_error(error)}") from error

    def _all(self) -> Iterator[pa.RecordBatch]:
        if self._stream is not None:
            yield from self._stream
        else:
            for number in range(self._file.num_record_batches):
                yield self._file.get_batch(number)


def _describe_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _validate_batch(batch: pa.RecordBatch, kept: list[str]) -> pa.RecordBatch:
    """Return the batch's kept columns in the types that tables are stored with. Raises pyarrow's own errors."""
    batch.validate(full=True)
    arrays, fields = [], []
    for name in kept:
        one = batch.column(name)
        if isinstance(one, pa.ExtensionArray):
            one = one.storage
        if pa.types.is_run_end_encoded(one.type):
            one = pa.compute.run_end_decode(one)
        kind = stored_type(one.type)
        arrays.append(one if one.type == kind or pa.types.is_dictionary(kind) else one.cast(kind))
        fields.append(pa.field(name, arrays[-1].type))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def reduce_pandas_metadata(schema: pa.Schema, kept: list[str]) -> tuple[list[str], dict[bytes, bytes]]:
    """Reduce what pandas wrote beside the columns to names, known types and the index.

    Returns index columns to keep beside the kept ones, and the metadata.
    """
    try:
        stated = json.loads((schema.metadata or {}).get(b"pandas", b"null"))
    except (ValueError, RecursionError):
        return [], {}
    if not isinstance(stated, dict):
        return [], {}
    names = set(schema.names)
    index = [one for one in stated.get("index_columns", []) if (isinstance(one, str) and one in names) or _is_range(one)]
    also = [one for one in index if isinstance(one, str) and one not in kept]
    wanted = {*kept, *also}
    columns = [
        _reduce_column(one)
        for one in stated.get("columns", [])
        if isinstance(one, dict) and one.get("field_name", one.get("name")) in wanted
    ]
    labels = [_reduce_column(one) for one in stated.get("column_indexes", []) if isinstance(one, dict)]
    reduced = {"index_columns": index, "column_indexes": labels, "columns": columns, "pandas_version": "3.0.0"}
    return also, {b"pandas": json.dumps(reduced).encode()}


def _is_range(one: object) -> bool:
    return (
        isinstance(one, dict)
        and one.get("kind") == "range"
        and all(isinstance(one.get(key), int) for key in ("start", "stop", "step"))
    )


def _reduce_column(one: JsonObject) -> JsonObject:
    known = isinstance(one.get("numpy_type"), str) and _DTYPE.fullmatch(one["numpy_type"])
    facts = one.get("metadata") if isinstance(one.get("metadata"), dict) else None
    return {
        "name": one.get("name") if isinstance(one.get("name"), str | None) else None,
        "field_name": one.get("field_name") if isinstance(one.get("field_name"), str | None) else None,
        "pandas_type": one.get("pandas_type") if isinstance(one.get("pandas_type"), str) else "object",
        "numpy_type": one["numpy_type"] if known else "object",
        "metadata": {key: facts[key] for key in ("num_categories", "ordered", "timezone", "unit", "encoding") if key in facts}
        if facts
        else None,
    }
