"""A file that is not a table is refused with the place and what to do."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.converted import convert_file


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"),
        (b"a,b\n1,2\n3,4\n5,6,7\n", "line 4, column 3: the row has 3 values where 2 are expected"),
        (b"a,b\n1,2,3\n", "line 2: this row has more values than the header has names"),
        (b"a,b\n1,caf\xe9\n", "line 2, column 2: a byte that is not UTF-8"),
        (b"a,b\n" + b"1,x\n" * 300_000 + b"1,\xff\n", "line 300002, column 2: a byte that is not UTF-8"),
        (b'a,b\n1,"two\n3,4\n', "a double quote opens and never closes"),
        (b"a;b\n1;2\n", "the header holds no ',' but ';': state the separator"),
    ],
)
def test_a_bad_csv_file_is_refused_with_its_place(tmp_path: Path, content: bytes, words: str) -> None:
    """Line, column, and what to do; in one piece or in many."""
    source = tmp_path / "bad.csv"
    source.write_bytes(content)
    for piece_bytes in (64, 1 << 24):
        report = convert_file(source, "csv", tmp_path, piece_bytes=piece_bytes).report
        assert words in report["refused"], report


def test_another_separator_is_read_when_it_is_stated(tmp_path: Path) -> None:
    """A semicolon file needs one word."""
    (tmp_path / "semicolons.csv").write_text("a;b\n1;2\n")
    got = convert_file(tmp_path / "semicolons.csv", "csv", tmp_path, separator=";")
    assert got.frame.to_dict("list") == {"a": [1], "b": [2]}


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A typing mistake in --drop must not publish the column that was meant."""
    (tmp_path / "people.csv").write_text("name,age\nx,1\n")
    report = convert_file(tmp_path / "people.csv", "csv", tmp_path, drop=["nmae"]).report
    assert "there is no column 'nmae'; there are: name, age" in report["refused"]


def test_a_sqlite_column_of_several_kinds_is_refused(tmp_path: Path) -> None:
    """SQLite lets a column hold anything; a frame does not."""
    with contextlib.closing(sqlite3.connect(tmp_path / "mixed.db")) as db:
        db.execute("CREATE TABLE t (x)")
        db.executemany("INSERT INTO t VALUES (?)", [(1,), ("one",), (2,)])
        db.commit()
    report = convert_file(tmp_path / "mixed.db", "sqlite", tmp_path).report
    assert "column 'x' mixes integer and text values (2 of them integer)" in report["refused"]


@pytest.mark.parametrize("form", ["parquet", "arrow", "sqlite"])
def test_bytes_of_another_kind_are_refused(tmp_path: Path, form: str) -> None:
    """The ending says one thing, the bytes another."""
    (tmp_path / "x").write_text("this is no table, and never was one\n" * 100)
    assert "it cannot be read as" in convert_file(tmp_path / "x", form, tmp_path).report["refused"]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """Which of them did the Earner mean to keep?"""
    table = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    pq.write_table(table, tmp_path / "twice.parquet")
    assert "two columns are called 'x'" in convert_file(tmp_path / "twice.parquet", "parquet", tmp_path).report["refused"]


@pytest.mark.parametrize(
    ("name", "values", "flagged"),
    [
        ("first_name", ["a"] * 30, True),
        ("DateOfBirth", ["1990-01-01"] * 30, True),
        ("MRN", [1] * 30, True),
        ("contact", [f"p{n}@example.org" for n in range(30)], True),
        ("remark", [f"text {n}" for n in range(30)], True),
        ("row", list(range(1000, 1030)), True),
        ("seen", [f"2020-01-{n + 1:02}" for n in range(30)], True),
        ("age", [20 + n % 9 for n in range(30)], False),
        ("hospital", ["north", "south", "west"] * 10, False),
        ("score", [n / 7 for n in range(30)], False),
    ],
)
def test_columns_that_may_identify_people_are_flagged(tmp_path: Path, name: str, values: list[object], flagged: bool) -> None:
    """Names, dates of birth, record numbers, mostly different texts; not ages, groups or measurements."""
    pd.DataFrame({name: values}).to_csv(tmp_path / "column.csv", index=False)
    schema = convert_file(tmp_path / "column.csv", "csv", tmp_path, look=True).report["schema"]
    assert bool(schema[0]["flags"]) is flagged, schema
