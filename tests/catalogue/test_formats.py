"""Files by their endings: what is read, and what to do with what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandacea.catalogue.products_file import parse_product
from pandacea.domain.ids import AssetId
from pandacea.domain.table import SourceFormat
from pandacea.errors import BadConfig


def test_a_tsv_file_is_separated_by_tabs(tmp_path: Path) -> None:
    """As its name says; another separator can be stated."""
    (tmp_path / "t.tsv").touch()
    recipe = parse_product({"id": "p", "assets": {"t": {"file": "t.tsv"}}}, tmp_path).assets[AssetId("t")].recipe
    assert (recipe.format, recipe.separator) == (SourceFormat.CSV, "\t")
    stated = parse_product({"id": "p", "assets": {"t": {"file": "t.tsv", "separator": ";"}}}, tmp_path)
    assert stated.assets[AssetId("t")].recipe.separator == ";"


@pytest.mark.parametrize(
    ("name", "words"),
    [("t.csv.gz", "unpack it first"), ("t.xlsx", "save its sheet as CSV first"), ("t.dat", "--format for `products add`")],
)
def test_what_is_not_read_says_what_to_do(tmp_path: Path, name: str, words: str) -> None:
    """And blames no file that nobody wrote."""
    (tmp_path / name).touch()
    with pytest.raises(BadConfig, match=words) as caught:
        parse_product({"id": "p", "assets": {"t": {"file": name}}}, tmp_path)
    assert "products.yaml" not in str(caught.value)
