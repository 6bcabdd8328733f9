"""From an open descriptor to a pandas DataFrame. Arrow files with plain numeric columns are mapped, not read."""

from __future__ import annotations

import mmap
import os
from typing import Any


class NoTable(Exception):
    """The bytes behind a descriptor are not the table they were said to be."""


def load(descriptor: int, form: str) -> Any:
    """Return a DataFrame the script may write to; the file itself never changes.

    Raises:
        NoTable: the format is unknown or the bytes do not parse; the message is the parser's.
    """
    reader = _READERS.get(form)
    if reader is None:
        raise NoTable(f"format {form!r} is not one of {', '.join(sorted(_READERS))}")
    try:
        return reader(descriptor)
    except (ValueError, OSError, TypeError, KeyError, UnicodeError, ArithmeticError, MemoryError) as error:
        # pandas' ParserError and EmptyDataError are ValueErrors; pyarrow's errors are ValueError, OSError, KeyError and TypeError.
        raise NoTable(f"{type(error).__name__}: {error}") from error
    finally:
        os.close(descriptor)


def _csv(descriptor: int) -> Any:
    import pandas as pd

    with open(os.dup(descriptor), "rb") as file:
        return pd.read_csv(file)


def _parquet(descriptor: int) -> Any:
    import pandas as pd

    with open(os.dup(descriptor), "rb") as file:
        return pd.read_parquet(file)


def _arrow(descriptor: int) -> Any:
    """Map an Arrow IPC file privately: pages are read when touched and copied when written (MAP_PRIVATE)."""
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    if os.fstat(descriptor).st_size == 0:
        raise NoTable("the file is empty")
    mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    whole = pa.py_buffer(mapped)
    reader = pa.ipc.open_file(pa.BufferReader(whole))
    if reader.num_record_batches != 1:
        return reader.read_all().to_pandas()
    batch = reader.get_batch(0)
    columns = {}
    for index, field in enumerate(batch.schema):
        array = batch.column(index)
        kind = field.type
        plain = (pa.types.is_integer(kind) or pa.types.is_floating(kind)) and array.null_count == 0
        values = array.buffers()[1] if plain else None
        if values is not None and whole.address <= values.address < whole.address + whole.size:
            dtype = np.dtype(kind.to_pandas_dtype())
            start = values.address - whole.address + array.offset * dtype.itemsize
            columns[field.name] = np.frombuffer(mapped, dtype, len(array), start)
        else:
            columns[field.name] = array.to_pandas()
    return pd.DataFrame(columns, copy=False)


_READERS = {"csv": _csv, "parquet": _parquet, "arrow": _arrow}
