"""From products.yaml to what is on offer: converted in a box, versioned by content, nothing half-registered."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from pandacea.catalogue.products_file import read
from pandacea.catalogue.registry import Catalogue
from pandacea.catalogue.tables import Tables
from pandacea.domain.product import Product
from pandacea.domain.table import TableShape
from pandacea.store.products import SqlProductBook
from tests.data.conftest import SIGNATURE

pytestmark = pytest.mark.asyncio(loop_scope="session")

PEOPLE = "name,age,ward\n" + "".join(f"person {n},{20 + n % 60},{'abc'[n % 3]}\n" for n in range(97))


def state(data_dir: Path, asset: dict[str, Any], **product: Any) -> None:
    entry = {"id": "p", "assets": {"people": asset}} | product
    (data_dir / "products.yaml").write_text(json.dumps({"products": [entry]}))


async def offered(catalogue: Catalogue, data_dir: Path) -> Product:
    troubles = await catalogue.register(read(data_dir), data_dir)
    assert troubles == []
    (product,) = catalogue.all()
    return product


async def test_a_table_is_converted_and_published(catalogue: Catalogue, data_dir: Path, tmp_path: Path) -> None:
    """The stored table is the node's own: content-addressed, read-only, outside the data folder; the document is signed."""
    (data_dir / "people.csv").write_text(PEOPLE)
    state(data_dir, {"drop": ["name"], "columns": {"age": {"unit": "years", "minimum": 0, "maximum": 110}}})
    product = await offered(catalogue, data_dir)
    asset = product.assets["people"]  # type: ignore[index]
    found = asset.path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o444
    assert asset.path.is_relative_to(tmp_path / "state")
    assert product.signature == SIGNATURE
    assert product.document["assets"][0]["schema"] == [
        {"name": "age", "type": "int64", "missing": 0.0, "unit": "years", "minimum": 0, "maximum": 110},
        {"name": "ward", "type": "string", "missing": 0.0},
    ]
    assert product.document["assets"][0]["rows_rounded"] == 90
    assert list((tmp_path / "state" / "tables" / "incoming").iterdir()) == []


async def test_unchanged_content_is_the_same_version(catalogue: Catalogue, data_dir: Path) -> None:
    """A restart, a touched file, a rewritten file of the same bytes: nothing new."""
    (data_dir / "people.csv").write_text(PEOPLE)
    state(data_dir, {"drop": ["name"]})
    first = await offered(catalogue, data_dir)
    os.utime(data_dir / "people.csv", (1, 1))
    assert (await offered(catalogue, data_dir)).version == first.version


async def test_changed_content_is_a_new_version_and_the_old_table_stays(
    catalogue: Catalogue, book: SqlProductBook, data_dir: Path
) -> None:
    """A job that was accepted on the old version keeps its own rows."""
    (data_dir / "people.csv").write_text(PEOPLE)
    state(data_dir, {"drop": ["name"]})
    first = await offered(catalogue, data_dir)
    old = first.assets["people"]  # type: ignore[index]
    before = old.path.read_bytes()
    (data_dir / "people.csv").write_text(PEOPLE + "somebody,44,a\n")
    second = await offered(catalogue, data_dir)
    assert second.version != first.version
    kept = await book.asset_by_commitment(old.commitment)
    assert kept is not None
    assert kept.path.read_bytes() == before
    assert second.assets["people"].path != kept.path  # type: ignore[index]


async def test_a_change_in_a_dropped_column_is_no_new_version(catalogue: Catalogue, data_dir: Path) -> None:
    """What is not converted does not show, not even as a new version."""
    (data_dir / "people.csv").write_text(PEOPLE)
    state(data_dir, {"drop": ["name"]})
    first = await offered(catalogue, data_dir)
    (data_dir / "people.csv").write_text(PEOPLE.replace("person 5,", "somebody else,"))
    assert (await offered(catalogue, data_dir)).version == first.version


async def test_changed_rules_are_a_new_version_of_the_same_table(catalogue: Catalogue, data_dir: Path) -> None:
    """Rules are signed with the data they are about."""
    (data_dir / "people.csv").write_text(PEOPLE)
    state(data_dir, {"drop": ["name"]})
    first = await offered(catalogue, data_dir)
    state(data_dir, {"drop": ["name"]}, rules={"policy": "any-code"})
    second = await offered(catalogue, data_dir)
    assert second.version != first.version
    assert second.assets["people"].commitment == first.assets["people"].commitment  # type: ignore[index]


async def test_a_file_that_turned_bad_takes_its_product_off_the_offer(
    catalogue: Catalogue, book: SqlProductBook, data_dir: Path, tmp_path: Path
) -> None:
    """Not the old version either: what the Earner changed may be what must not be served any more. Others stay."""
    (data_dir / "people.csv").write_text(PEOPLE)
    (data_dir / "other.csv").write_text("x\n1\n2\n")
    products = [{"id": "p", "assets": ["people"]}, {"id": "q", "assets": ["other"]}]
    (data_dir / "products.yaml").write_text(json.dumps({"products": products}))
    await catalogue.register(read(data_dir), data_dir)
    assert [product.product_id for product in catalogue.all()] == ["p", "q"]
    (data_dir / "people.csv").write_text(PEOPLE + "a,b,c,d\n")
    (trouble,) = await catalogue.register(read(data_dir), data_dir)
    assert trouble.product_id == "p"
    assert "people.csv: line 99, column 4" in trouble.detail
    assert [product.product_id for product in catalogue.all()] == ["q"]
    assert await book.offered() == {"q"}
    assert list((tmp_path / "state" / "tables" / "incoming").iterdir()) == []


async def test_a_description_of_a_column_that_is_not_there_is_refused(catalogue: Catalogue, data_dir: Path) -> None:
    """A mistyped name would publish a column without its range."""
    (data_dir / "people.csv").write_text(PEOPLE)
    state(data_dir, {"columns": {"aeg": {"minimum": 0}}})
    (trouble,) = await catalogue.register(read(data_dir), data_dir)
    assert "describes the column 'aeg'" in trouble.detail


async def test_the_mock_has_the_types_of_the_table(catalogue: Catalogue, data_dir: Path) -> None:
    """A rehearsal's frame is one of the same columns and types, from the mock's own stored table."""
    from pandacea.sandbox.guest import tables as guest_tables

    (data_dir / "people.csv").write_text(PEOPLE.replace("person 5,25", "person 5,"))
    state(data_dir, {"drop": ["name"], "mock": {"rows": 7}, "columns": {"ward": {"categories": ["x", "y"]}}})
    asset = (await offered(catalogue, data_dir)).assets["people"]  # type: ignore[index]
    assert asset.mock is not None
    private, mock = (guest_tables.load(os.open(path, os.O_RDONLY), "arrow") for path in (asset.path, asset.mock.table))
    assert dict(mock.dtypes) == dict(private.dtypes)
    assert len(mock) == 7
    assert set(mock["ward"]) <= {"x", "y"}


async def test_no_step_of_a_conversion_reads_twice_what_was_converted(tables: Tables, data_dir: Path, catalogue: Catalogue) -> None:
    """A table is converted once, whoever asks for it next; a fresh record finds it by how it was made."""
    (data_dir / "people.csv").write_text(PEOPLE)
    state(data_dir, {})
    first = (await offered(catalogue, data_dir)).assets["people"]  # type: ignore[index]

    class Never:
        async def convert(self, *_: object) -> TableShape:
            raise AssertionError("converted again")

    tables._converter = Never()
    assert (await offered(catalogue, data_dir)).assets["people"] == first  # type: ignore[index]
