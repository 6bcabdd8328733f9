"""The frame a script gets is the frame pandas would have read from the Earner's file."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import io
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.converted import Converted, convert_file

SCALE = float(os.environ.get("PANDACEA_TEST_SCALE", "1"))
MANY = settings(max_examples=int(300 * SCALE), deadline=None)

integers = st.integers(-(2**63), 2**63 - 1).map(str)
small = st.integers(-9, 99).map(str)
unsigned = st.integers(2**63, 2**64 - 1).map(str)
floats = st.floats(width=64).map(repr)
truths = st.sampled_from(["True", "False", "true", "FALSE"])
missing = st.sampled_from(["", "NA", "nan", "NULL", "N/A"])
dates = st.dates().map(str)
words = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12)
labels = words.filter(lambda name: name.strip() and not set(name) & set(";\t|"))
cells = [
    small,
    integers,
    unsigned,
    floats,
    truths,
    dates,
    words,
    small | missing,
    floats | missing,
    truths | missing,
    words | missing,
]
cells += [
    small | floats,
    small | words,
    truths | small,
    unsigned | small,
    missing,
    floats | unsigned | missing,
    small | truths | missing,
]


@st.composite
def csv_tables(draw: st.DrawFn) -> bytes:
    """A CSV file whose columns are of one kind, of several, or change kind half-way."""
    rows = draw(st.integers(0, 40))
    columns = []
    for _ in range(draw(st.integers(1, 5))):
        first, second = draw(st.sampled_from(cells)), draw(st.sampled_from(cells))
        turn = draw(st.integers(0, rows)) if draw(st.booleans()) else rows
        columns.append(
            draw(st.lists(first, min_size=turn, max_size=turn)) + draw(st.lists(second, min_size=rows - turn, max_size=rows - turn))
        )
    names = draw(st.lists(labels, min_size=len(columns), max_size=len(columns), unique=True))
    out = io.StringIO()
    frame = pd.DataFrame(dict(enumerate(columns)), dtype="str")
    frame.to_csv(out, index=False, header=names, lineterminator=draw(st.sampled_from(["\n", "\r\n"])))
    return out.getvalue().encode()


def same(got: Converted, wanted: pd.DataFrame) -> None:
    assert "refused" not in got.report, got.report
    pd.testing.assert_frame_equal(got.frame, wanted, check_index_type=True, check_column_type=False, check_freq=False)
    assert got.report["rows"] == len(wanted)
    for name in wanted.columns:  # what assert_frame_equal is lenient about
        if wanted[name].dtype == object:
            assert [type(value) for value in got.frame[name]] == [type(value) for value in wanted[name]], name


@MANY
@given(csv_tables(), st.sampled_from([1, 200, 1 << 24]))
def test_a_csv_file_becomes_the_frame_pandas_reads(text: bytes, piece_bytes: int) -> None:
    """Types, missing values, texts, in one piece or in many: as `pandas.read_csv(file, low_memory=False)`."""
    try:
        wanted = pd.read_csv(io.BytesIO(text), low_memory=False)
    except (ValueError, OverflowError):
        wanted = None
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.csv")
        source.write_bytes(text)
        got = convert_file(source, "csv", Path(folder), piece_bytes=piece_bytes)
        if wanted is None:
            assert got.report["refused"]
        else:
            same(got, wanted)


def arrow_columns(rows: int) -> dict[str, st.SearchStrategy[Any]]:
    """A column of each type that pandas writes to Parquet."""
    days = st.dates(dt.date(1700, 1, 1), dt.date(2200, 1, 1))
    moments = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))  # noqa: DTZ001 - naive on purpose
    values: dict[str, tuple[st.SearchStrategy[Any], Any]] = {
        "int8": (st.integers(-128, 127), "int8"),
        "uint64": (st.integers(0, 2**64 - 1), "uint64"),
        "float32": (st.floats(width=32), "float32"),
        "float64": (st.floats() | st.none(), "float64"),
        "Int64": (st.integers(-9, 9) | st.none(), "Int64"),
        "boolean": (st.booleans() | st.none(), "boolean"),
        "bool": (st.booleans(), "bool"),
        "truth_or_none": (st.booleans() | st.none(), object),
        "str": (words | st.none(), "str"),
        "string": (words | st.none(), "string"),
        "category": (st.sampled_from(["low", "mid", "high"]) | st.none(), "category"),
        "ordered": (st.sampled_from([3, 1, 2]), pd.CategoricalDtype([3, 2, 1, 0], ordered=True)),
        "date": (days | st.none(), object),
        "time": (st.times() | st.none(), object),
        "naive": (moments | st.none(), "datetime64[us]"),
        "zoned": (moments | st.none(), "datetime64[ns, Europe/Berlin]"),
        "span": (st.timedeltas(dt.timedelta(-9), dt.timedelta(9)) | st.none(), "timedelta64[us]"),
        "decimal": (st.decimals(-99, 99, places=2) | st.none(), object),
        "bytes": (st.binary(max_size=5) | st.none(), object),
        "list": (st.lists(st.integers(0, 9), max_size=3), object),
    }
    return {
        name: st.lists(cell, min_size=rows, max_size=rows).map(functools.partial(_series, dtype=dtype))
        for name, (cell, dtype) in values.items()
    }


def _series(cells: list[Any], dtype: Any) -> Any:
    if "Berlin" in str(dtype):
        moments: Any = pd.Series(pd.to_datetime(cells, utc=True))
        return moments.astype(dtype)
    return pd.Series(cells, dtype=dtype)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    """A frame of some of those columns, with a default or a named index."""
    kinds = arrow_columns(rows := draw(st.integers(0, 30)))
    chosen = draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, max_size=5, unique=True))
    frame = pd.DataFrame({name: draw(kinds[name]) for name in chosen})
    if draw(st.booleans()):
        frame.index = pd.Index([f"row {number}" for number in range(rows)], name="key", dtype="str")
    return frame


@settings(max_examples=int(150 * SCALE), deadline=None)
@given(frames(), st.sampled_from([1, 7, 1000]), st.sampled_from([1, 1 << 20]))
def test_a_parquet_file_becomes_the_frame_pandas_reads(frame: pd.DataFrame, group: int, piece_bytes: int) -> None:
    """Every type pandas writes, missing values, categories and their order, time zones, an index: as `pandas.read_parquet`."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.parquet")
        frame.to_parquet(source, row_group_size=group)
        same(convert_file(source, "parquet", Path(folder), piece_bytes=piece_bytes), pd.read_parquet(source))


@settings(max_examples=int(75 * SCALE), deadline=None)
@given(frames(), st.sampled_from([1, 1 << 20]))
def test_an_arrow_file_becomes_the_frame_pandas_reads(frame: pd.DataFrame, piece_bytes: int) -> None:
    """The same from a Feather file, as `pandas.read_feather`."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "source.feather")
        frame.reset_index(drop=True).to_feather(source)
        same(convert_file(source, "arrow", Path(folder), piece_bytes=piece_bytes), pd.read_feather(source))


@pytest.mark.parametrize("rows", [0, 1, 200])
def test_a_wide_table_keeps_every_column(tmp_path: Path, rows: int) -> None:
    """Two thousand columns, of no rows, one, and many."""
    frame = pd.DataFrame(np.arange(rows * 2000).reshape(rows, 2000), columns=[f"ø{number}" for number in range(2000)])
    frame.to_csv(tmp_path / "wide.csv", index=False)
    same(convert_file(tmp_path / "wide.csv", "csv", tmp_path, piece_bytes=1 << 20), pd.read_csv(tmp_path / "wide.csv"))


def test_a_sqlite_table_becomes_a_frame(tmp_path: Path) -> None:
    """Numbers, texts and missing values as `pandas.read_sql` gives them; without being told, the only table is read."""
    with contextlib.closing(sqlite3.connect(tmp_path / "clinic.db")) as db:
        db.execute('CREATE TABLE "the visits" (n INTEGER, weight REAL, note TEXT, "a ""b" INTEGER)')
        rows = [(number, number / 3, f"é{number}" if number % 4 else None, None if number % 3 else number) for number in range(100)]
        db.executemany('INSERT INTO "the visits" VALUES (?, ?, ?, ?)', rows)
        db.commit()
        wanted = pd.read_sql('SELECT * FROM "the visits"', db)
    got = convert_file(tmp_path / "clinic.db", "sqlite", tmp_path, piece_bytes=1)
    wanted["note"] = wanted["note"].astype("str")
    same(got, wanted)


def test_only_kept_columns_are_in_the_table(tmp_path: Path) -> None:
    """A dropped column is not converted: no byte of it is in the table's file."""
    source = tmp_path / "people.csv"
    source.write_text("name,age\nHildegard,41\nOttokar,52\n")
    got = convert_file(source, "csv", tmp_path, drop=["name"])
    assert list(got.frame.columns) == ["age"]
    assert b"Hildegard" not in got.table.read_bytes()
    assert b"name" not in got.table.read_bytes()


def test_the_table_is_one_batch_that_needs_no_reading(tmp_path: Path) -> None:
    """However many pieces it was read in, a table is one batch, and numbers without gaps are mapped and may be written to."""
    source = tmp_path / "numbers.csv"
    source.write_text("a,b\n" + "".join(f"{n},{n / 2}\n" for n in range(10_000)))
    got = convert_file(source, "csv", tmp_path, piece_bytes=1000)
    assert pa.ipc.open_file(pa.OSFile(str(got.table))).num_record_batches == 1
    before = got.table.read_bytes()
    got.frame["a"] += 1
    got.frame.loc[5, "b"] = -1.0
    assert got.frame["a"].tolist() == list(range(1, 10_001))
    assert got.table.read_bytes() == before
