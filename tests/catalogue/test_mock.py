"""A mock is made from what is public, and from nothing else."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandacea.api.croissant import croissant_document
from pandacea.api.product_page import CONTENT_SECURITY_POLICY, render_product_page
from pandacea.catalogue.mock import mock_csv
from pandacea.domain.limits import Limits

NAMES = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
KINDS = ["int64", "uint8", "float64", "bool", "string", "category[string]", "timestamp[us]", "date32[day]", "decimal128(10, 2)"]


@st.composite
def columns(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Published columns of every kind, described or not."""
    made = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=5, unique=True)):
        column: dict[str, Any] = {"name": name, "type": draw(st.sampled_from(KINDS)), "missing": draw(st.sampled_from([0.0, 0.3]))}
        if column["type"].startswith(("int", "uint", "float")) and draw(st.booleans()):
            low = draw(st.integers(0, 100))
            column |= {"minimum": low, "maximum": low + draw(st.integers(0, 100))}
        if column["type"].startswith(("string", "category")) and draw(st.booleans()):
            column["categories"] = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3, unique=True))
        made.append(column)
    return made


def read(text: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.decode())))


@settings(max_examples=100, deadline=None)
@given(columns(), st.integers(0, 30), st.integers(0, 2**32))
def test_a_mock_keeps_to_its_description(described: list[dict[str, Any]], rows: int, seed: int) -> None:
    """Names, row count, ranges, categories, and the same rows again from the same seed."""
    text = mock_csv(described, rows, seed)
    assert text == mock_csv(described, rows, seed)
    header, *cells = read(text)
    assert header == [column["name"] for column in described]
    assert len([row for row in cells if row]) == rows or any(column["missing"] for column in described)
    for place, column in enumerate(described):
        present = [row[place] for row in cells if row and row[place]]
        if "minimum" in column:
            assert all(column["minimum"] - 1 <= float(value) <= column["maximum"] + 1 for value in present)
        if "categories" in column:
            assert set(present) <= set(column["categories"])


def test_a_share_of_missing_values_is_met() -> None:
    """A third missing is about a third; none is none."""
    described = [{"name": "x", "type": "float64", "missing": 0.3}, {"name": "y", "type": "float64", "missing": 0.0}]
    rows = read(mock_csv(described, 2000, 1))[1:]
    assert 500 < sum(row[0] == "" for row in rows) < 700
    assert all(row[1] for row in rows)


def document(described: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "product_id": "p",
        "name": "<b>bold</b> & \u202ereversed",
        "description": "<script>alert(1)</script>",
        "data_type": "tabular",
        "keywords": ['"quoted"'],
        "price_wei": "1500000000000000000",
        "rules": {"policy": "any-code", "release": "auto", "live_output": "none", "rehearsal": "off", "show_messages": False},
        "assets": [
            {
                "asset_id": "people",
                "description": "",
                "schema": described,
                "rows_rounded": 0,
                "commitment": "00" * 32,
                "mock": {"rows": 10, "seed": 0, "sha256": "ab" * 32},
            }
        ],
    }


@settings(max_examples=15, deadline=None)
@given(columns())
def test_croissant_is_valid_whatever_the_columns_are_called(described: list[dict[str, Any]]) -> None:
    """The reference implementation reads it without an error, and finds every column."""
    made = croissant_document(document(described), "https://earner.example/api/v1/products/p")
    dataset = mlcroissant.Dataset(jsonld=json.loads(json.dumps(made)))
    assert dataset.metadata.ctx.issues.errors == set()
    assert len(dataset.metadata.record_sets[0].fields) == len(described)


def test_the_page_escapes_every_word_and_loads_nothing(tmp_path: Path) -> None:
    """Markup in a name is text, a right-to-left override is visible, no script, no reference to any other place."""
    page = render_product_page(
        document([{"name": "<img src=x onerror=alert(1)>", "type": "int64", "missing": 0.0, "description": "</table>"}]),
        version="v",
        signature="s",
        product_hash="h",
        earner="e",
        limits=Limits().as_json(),
        environment=None,
    ).decode()
    for forbidden in ("<script", "<img", "<b>bold", "\u202e", "http-equiv", 'src="', "url("):
        assert forbidden not in page, forbidden
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "\\u202ereversed" in page
    assert "1.5 ether" in page
    assert "Fewer than 10 rows" in page
    assert "5 runs that fail" in page
    assert "last 300 bytes of output come back, and no files" in page
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY


@pytest.mark.parametrize(
    ("kind", "sample"), [("timestamp[us]", "2020-01-01"), ("date32[day]", "2020-01-01"), ("string", "2020-01-01")]
)
def test_stated_dates_give_dates(kind: str, sample: str) -> None:
    """A range of dates is met, in a column of times or of texts."""
    described = [{"name": "seen", "type": kind, "missing": 0.0, "minimum": sample, "maximum": "2020-03-01"}]
    cells = [row[0][:10] for row in read(mock_csv(described, 200, 3))[1:]]
    assert min(cells) >= sample
    assert max(cells) <= "2020-03-01"
