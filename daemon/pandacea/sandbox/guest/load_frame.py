"""Load a pandas DataFrame from an open descriptor. Arrow files with plain numeric columns are mapped, not read."""

from __future__ import annotations

import json
import mmap
import os
from typing import TYPE_CHECKING

from .packets import JsonObject

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa


class FrameError(Exception):
    """The bytes behind a descriptor are not a table of the stated format."""


def load_frame(descriptor: int, form: str) -> pd.DataFrame:
    """Return a DataFrame that the script may write to; the file itself never changes.

    Raises:
        FrameError: the format is unknown or the bytes do not parse; the message is the parser's.
    """
    reader = _READERS.get(form)
    if reader is None:
        raise FrameError(f"format {form!r} is not one of {', '.join(sorted(_READERS))}")
    try:
        return reader(descriptor)
    except (ValueError, OSError, TypeError, KeyError, UnicodeError, ArithmeticError, MemoryError) as error:
        # pandas' ParserError and EmptyDataError are ValueErrors; pyarrow's errors are ValueError, OSError, KeyError and TypeError.
        raise FrameError(f"{type(error).__name__}: {error}") from error
    finally:
        os.close(descriptor)


def _csv(descriptor: int) -> pd.DataFrame:
    import pandas as pd

    with open(os.dup(descriptor), "rb") as file:
        return pd.read_csv(file)


def _parquet(descriptor: int) -> pd.DataFrame:
    import pandas as pd

    with open(os.dup(descriptor), "rb") as file:
        return pd.read_parquet(file)


def _arrow(descriptor: int) -> pd.DataFrame:
    """Map an Arrow IPC file privately: pages are read when touched and copied when written (MAP_PRIVATE)."""
    import pandas as pd
    import pyarrow as pa

    if os.fstat(descriptor).st_size == 0:
        raise FrameError("the file is empty")
    mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    whole = pa.py_buffer(mapped)
    reader = pa.ipc.open_file(pa.BufferReader(whole))
    metadata = reader.schema.metadata or {}
    dtypes = _plain_dtypes(json.loads(metadata.get(b"pandas", b"{}")))
    if reader.num_record_batches != 1 or dtypes is None:
        frame: pd.DataFrame = reader.read_all().to_pandas()
        return frame
    batch = reader.get_batch(0)
    columns: dict[str, np.ndarray | pd.Series | None] = {}
    rest = []
    for index, field in enumerate(batch.schema):
        columns[field.name] = _map_column(batch.column(index), mapped, whole, dtypes.get(field.name))
        if columns[field.name] is None:
            rest.append(field.name)
    if rest:
        read = pa.Table.from_batches([batch]).select(rest).to_pandas()
        as_nan = json.loads(metadata.get(b"pandacea", b"{}")).get("missing") == "nan"
        for name in rest:
            columns[name] = _missing_as_nan(read[name]) if as_nan else read[name]
    return pd.DataFrame(columns, index=pd.RangeIndex(batch.num_rows), copy=False)


def _plain_dtypes(stated: JsonObject) -> dict[str, str] | None:
    """Return pandas' name of each column's type, or None when the frame has an index or labels that pyarrow must rebuild."""
    index = stated.get("index_columns", [])
    default = not index or (
        len(index) == 1 and isinstance(index[0], dict) and index[0].get("start") == 0 and index[0].get("step") == 1
    )
    labels = stated.get("column_indexes", [])
    plain = all(one.get("name") is None and one.get("pandas_type") in {"unicode", "string", "empty"} for one in labels)
    if not default or not plain or (index and index[0].get("name") is not None):
        return None
    return {one["field_name"]: one["numpy_type"] for one in stated.get("columns", [])}


def _map_column(array: pa.Array, mapped: mmap.mmap, whole: pa.Buffer, dtype_name: str | None) -> np.ndarray | None:
    """Return a numeric column without missing values as an array over the mapping itself; None when it must be converted."""
    import numpy as np
    import pyarrow as pa

    kind = array.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)) or array.null_count:
        return None
    dtype = np.dtype(kind.to_pandas_dtype())
    values = array.buffers()[1]
    if dtype_name not in {None, str(dtype)} or values is None or not whole.address <= values.address < whole.address + whole.size:
        return None
    return np.frombuffer(mapped, dtype, len(array), values.address - whole.address + array.offset * dtype.itemsize)


def _missing_as_nan(values: pd.Series) -> pd.Series:
    """Replace null by NaN, as in the frame that pandas reads from a text file."""
    if values.dtype != object:
        return values
    return values.where(values.notna(), float("nan"))


_READERS = {"csv": _csv, "parquet": _parquet, "arrow": _arrow}
