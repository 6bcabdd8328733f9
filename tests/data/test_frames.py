"""The frame a script gets is the frame pandas would have read from the Earner's file."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

import pandas as pd
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.data.converted import Converted, convert_file

NOSHRINK = [Phase.explicit, Phase.generate]
SCALE = float(os.environ.get("PANDACEA_TEST_SCALE", "1"))
MANY = settings(max_examples=int(200 * SCALE), deadline=None, phases=NOSHRINK)

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
    assert "refused" not in got.told, got.told
    pd.testing.assert_frame_equal(got.frame, wanted, check_index_type=True, check_column_type=False, check_freq=False)
    assert got.told["rows"] == len(wanted)
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
        Path("/tmp/exp/last.csv").write_bytes(text)
        if wanted is None:
            assert got.told["refused"]
        else:
            same(got, wanted)
