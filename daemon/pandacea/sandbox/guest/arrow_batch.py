"""Write an Arrow IPC file of ONE record batch in bounded memory, however large the table.

A frame is mapped from such a file without reading it, so the whole table must be one batch, column after column; but tables come row
after row. Pieces of columns therefore go to a scratch file as they come, already in Arrow's layout. At the end pyarrow writes a batch
whose buffers are placeholders: addresses in an empty mapping. It lays out the file and its metadata, and wherever it would write a
placeholder, the pieces are copied from the scratch file instead.
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_IN_MEMORY_BYTES: Final = 64 << 20
"""Bytes that a nested column, or the categories of a column, may take: these are kept in memory."""
_MAP_NORESERVE: Final = 0x4000  # mmap(2); not in Python 3.11's mmap module
_COPY_BYTES: Final = 1 << 24
_PAGE_BYTES: Final = 4096


class ConversionRefused(Exception):
    """The source is not a table that can be served; the message says where and what to do."""


class ScratchBuffer:
    """One buffer of one column, as pieces of the scratch file in order."""

    def __init__(self, scratch: int) -> None:
        self._scratch = scratch
        self._pieces = array("q")  # offset, size, offset, size ...
        self.size = 0

    def append(self, data: Any) -> None:
        """Append bytes to the scratch file: a numpy array or a pyarrow buffer, which no type of Python 3.11 joins."""
        view = memoryview(data).cast("B")
        if not view:
            return
        offset = os.lseek(self._scratch, 0, os.SEEK_END)
        self._pieces.extend((offset, len(view)))
        self.size += len(view)
        while view:
            view = view[os.write(self._scratch, view) :]

    def copy_to(self, out: int) -> None:
        """Write the pieces to `out` at its position."""
        for at in range(0, len(self._pieces), 2):
            offset, left = self._pieces[at], self._pieces[at + 1]
            while left:
                done = os.sendfile(out, self._scratch, offset, min(left, _COPY_BYTES))
                if done == 0:
                    raise OSError("the scratch file ended early")
                offset, left = offset + done, left - done


def stored_type(kind: pa.DataType) -> pa.DataType:
    """Return the type that a column is stored with: extension types become their storage, 32-bit offsets and views 64-bit offsets."""
    if isinstance(kind, pa.BaseExtensionType):
        return stored_type(kind.storage_type)
    types = pa.types
    if types.is_dictionary(kind):
        return pa.dictionary(pa.int32(), stored_type(kind.value_type), kind.ordered)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.large_string()
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.large_binary()
    if types.is_run_end_encoded(kind):
        return stored_type(kind.value_type)
    return kind


class ColumnSpool:
    """Spools one column to the scratch file. Every piece but the last has a multiple of eight rows, so that bitmaps join at whole bytes."""

    def __init__(self, scratch: int, kind: pa.DataType) -> None:
        self.arrow_type = kind
        self.rows = self.nulls = self.missing = 0
        """`missing` counts nulls and NaN, `nulls` what the bitmap marks."""
        self._valid, self._values, self._data = ScratchBuffer(scratch), ScratchBuffer(scratch), ScratchBuffer(scratch)
        self._categories: pa.Array | None = None
        self._in_memory: list[pa.Array] = []

    def add_piece(self, piece: pa.Array) -> None:
        """Append an array of this column's type. Raises ConversionRefused."""
        if self.rows % 8:
            raise ValueError("the piece before this one had rows that are not a multiple of eight")
        types = pa.types
        if self._nested or types.is_null(self.arrow_type):
            self._keep_in_memory(piece)
        else:
            self._valid.append(np.packbits(piece.is_valid().to_numpy(zero_copy_only=False), bitorder="little"))
            if types.is_dictionary(self.arrow_type):
                self._add_fixed(self._to_codes(piece), 4)
            elif types.is_boolean(self.arrow_type):
                bits = pc.fill_null(piece, False).to_numpy(zero_copy_only=False)
                self._values.append(np.packbits(bits, bitorder="little"))
            elif self._variable:
                self._add_variable(piece)
            else:
                self._add_fixed(piece, self.arrow_type.bit_width // 8)
        self.rows += len(piece)
        self.nulls += piece.null_count
        self.missing += piece.null_count + (pc.sum(pc.is_nan(piece)).as_py() or 0 if types.is_floating(self.arrow_type) else 0)

    @property
    def _nested(self) -> bool:
        return bool(pa.types.is_nested(self.arrow_type))

    @property
    def _variable(self) -> bool:
        return bool(pa.types.is_large_string(self.arrow_type) or pa.types.is_large_binary(self.arrow_type))

    def _keep_in_memory(self, piece: pa.Array) -> None:
        self._in_memory.append(piece)
        if sum(one.nbytes for one in self._in_memory) > MAX_IN_MEMORY_BYTES:
            raise ConversionRefused(
                f"a nested column ({self.arrow_type}) holds more than {MAX_IN_MEMORY_BYTES >> 20} MiB; store it as plain columns or drop it"
            )

    def _add_fixed(self, piece: pa.Array, width: int) -> None:
        self._values.append(piece.buffers()[1].slice(piece.offset * width, len(piece) * width))

    def _add_variable(self, piece: pa.Array) -> None:
        _, offsets, data = piece.buffers()
        ends = np.frombuffer(offsets, np.int64, len(piece) + 1, piece.offset * 8)
        base = self._data.size
        if base == 0 and self._values.size == 0:
            self._values.append(np.zeros(1, np.int64))
        self._values.append(ends[1:] - ends[0] + base)
        if data is not None:
            self._data.append(data.slice(int(ends[0]), int(ends[-1] - ends[0])))

    def _to_codes(self, piece: pa.Array) -> pa.Array:
        """Return the piece's codes in the dictionary of the whole column, which grows in order of appearance."""
        words = piece.dictionary
        if words.null_count or (self._categories is None and len(words) != pc.count_distinct(words).as_py()):
            piece = piece.dictionary_decode().dictionary_encode()
            words = piece.dictionary
        if self._categories is None:
            self._categories = words
        elif not self._categories.equals(words):
            fresh = words.filter(pc.invert(pc.is_in(words, self._categories)))
            self._categories = pa.concat_arrays([self._categories, fresh])
            codes = pc.index_in(words, self._categories)
            return pc.fill_null(codes.take(piece.indices), 0).cast(pa.int32())
        if self._categories.nbytes > MAX_IN_MEMORY_BYTES:
            raise ConversionRefused(f"a column's categories take more than {MAX_IN_MEMORY_BYTES >> 20} MiB; store it as plain text")
        return pc.fill_null(piece.indices.cast(pa.int32()), 0)

    def to_array(self, placeholders: PlaceholderMemory) -> pa.Array:
        """Return the whole column as an array of placeholders, which are replaced while the file is written."""
        kind, rows = self.arrow_type, self.rows
        if pa.types.is_null(kind):
            return pa.nulls(rows)
        if self._nested:
            held = pa.chunked_array(self._in_memory, kind).combine_chunks()
            return held.chunk(0) if isinstance(held, pa.ChunkedArray) else held
        valid = placeholders.reserve(self._valid) if self.nulls else None
        if self._variable:
            if self._values.size == 0:
                self._values.append(np.zeros(1, np.int64))
            offsets = placeholders.reserve(self._values, last=self._data.size)
            return pa.Array.from_buffers(kind, rows, [valid, offsets, placeholders.reserve(self._data)], self.nulls)
        codes = pa.int32() if pa.types.is_dictionary(kind) else kind
        values = pa.Array.from_buffers(codes, rows, [valid, placeholders.reserve(self._values)], self.nulls)
        if not pa.types.is_dictionary(kind):
            return values
        words = self._categories if self._categories is not None else pa.array([], kind.value_type)
        return pa.DictionaryArray.from_arrays(values, words.cast(kind.value_type), ordered=kind.ordered, safe=False)

    @property
    def placeholder_bytes(self) -> int:
        """Bytes of address space that the placeholders of this column's buffers need."""
        return self._valid.size + self._values.size + self._data.size + 8 + 4 * _PAGE_BYTES


class PlaceholderMemory:
    """Addresses without memory behind them. Only touched pages exist, and only the last offset of a text column is touched."""

    def __init__(self, size: int) -> None:
        self._mapping = mmap.mmap(-1, size + _PAGE_BYTES, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | _MAP_NORESERVE)
        self._base = pa.py_buffer(self._mapping).address
        self._used = 0
        self.buffers: dict[int, ScratchBuffer] = {}

    def reserve(self, buffer: ScratchBuffer, last: int | None = None) -> pa.Buffer:
        """Return a placeholder for a buffer. `last`: the integer that its last eight bytes must hold before it is written."""
        address = self._base + self._used
        if last is not None:
            struct.pack_into("<q", self._mapping, self._used + buffer.size - 8, last)
        self._used += -(-max(buffer.size, 1) // 64) * 64
        self.buffers[address] = buffer
        return pa.foreign_buffer(address, buffer.size, self._mapping)


class _ScratchFiller:
    """The file that pyarrow writes to: bytes pass through, placeholders are replaced by their buffers."""

    def __init__(self, out: int, placeholders: PlaceholderMemory) -> None:
        self._out, self._placeholders, self._position = out, placeholders, 0
        self.closed = False

    def write(self, data: pa.Buffer | bytes) -> int:
        buffer = self._placeholders.buffers.get(data.address) if isinstance(data, pa.Buffer) else None
        size = data.size if isinstance(data, pa.Buffer) else len(data)
        if buffer is None:
            view = memoryview(data)
            while view:
                view = view[os.write(self._out, view) :]
        elif buffer.size != size:
            raise OSError("pyarrow writes a part of a buffer")
        else:
            buffer.copy_to(self._out)
        self._position += size
        return int(size)

    def tell(self) -> int:
        return self._position

    def flush(self) -> None:
        """Do nothing: every write is passed on at once."""

    def close(self) -> None:
        self.closed = True


def write_arrow_file(out: int, names: list[str], columns: list[ColumnSpool], metadata: dict[bytes, bytes]) -> None:
    """Write the file to the descriptor `out`. Raises OSError (EFBIG: the table is larger than its cap)."""
    placeholders = PlaceholderMemory(sum(column.placeholder_bytes for column in columns))
    arrays = [column.to_array(placeholders) for column in columns]
    fields = [pa.field(name, one.type) for name, one in zip(names, arrays, strict=True)]
    schema = pa.schema(fields, metadata or None)
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    sink = pa.PythonFile(_ScratchFiller(out, placeholders), mode="w")
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)


def align_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of a multiple of eight, but for the last."""
    left: pa.RecordBatch | None = None
    for batch in batches:
        whole = batch
        if left is not None:
            joined = pa.Table.from_batches([left, batch]).combine_chunks().to_batches()
            whole = joined[0]
        ragged = whole.num_rows % 8
        if whole.num_rows - ragged:
            yield whole.slice(0, whole.num_rows - ragged)
        left = whole.slice(whole.num_rows - ragged) if ragged else None
    if left is not None:
        yield left
