"""From products.yaml to what is on offer: converted in a sandbox, versioned by content, nothing half-registered."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pandacea.app.control.products import ProductControl, read_declared_products
from pandacea.app.render import render_answer
from pandacea.catalogue.product_checks import check_product
from pandacea.catalogue.products_file import read_products
from pandacea.catalogue.registry import ProductCatalogue
from pandacea.catalogue.table_store import TableStore
from pandacea.domain.ids import AssetId
from pandacea.domain.product import Product
from pandacea.domain.table import TableShape
from pandacea.errors import BadConfig
from pandacea.store.products import SqlProductStore
from tests.data.conftest import SIGNATURE
from tests.fakes import FakeClock

pytestmark = pytest.mark.asyncio(loop_scope="session")

PEOPLE_ID = AssetId("people")
PEOPLE = "name,age,ward\n" + "".join(f"person {n},{20 + n % 60},{'abc'[n % 3]}\n" for n in range(97))


def declare(data_dir: Path, asset: dict[str, Any], **product: Any) -> None:
    entry = {"id": "p", "assets": {"people": asset}} | product
    (data_dir / "products.yaml").write_text(json.dumps({"products": [entry]}))


async def register_product(catalogue: ProductCatalogue, data_dir: Path) -> Product:
    rejected = await catalogue.register(read_products(data_dir), data_dir)
    assert rejected == []
    (product,) = catalogue.list_products()
    return product


async def test_a_table_is_converted_and_published(catalogue: ProductCatalogue, data_dir: Path, tmp_path: Path) -> None:
    """The stored table is the node's own: content-addressed, read-only, outside the data folder; the document is signed."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {"drop": ["name"], "columns": {"age": {"unit": "years", "minimum": 0, "maximum": 110}}})
    product = await register_product(catalogue, data_dir)
    asset = product.assets[PEOPLE_ID]
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


async def test_unchanged_content_is_the_same_version(catalogue: ProductCatalogue, data_dir: Path) -> None:
    """A restart, a touched file, a rewritten file of the same bytes: nothing new."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {"drop": ["name"]})
    first = await register_product(catalogue, data_dir)
    os.utime(data_dir / "people.csv", (1, 1))
    assert (await register_product(catalogue, data_dir)).version == first.version


async def test_another_key_signs_the_same_version_again(
    catalogue: ProductCatalogue, product_store: SqlProductStore, tables: TableStore, data_dir: Path
) -> None:
    """A replaced operator's signature is refused by Spenders before they pay: the new one's takes its place, served and stored."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {"drop": ["name"]})
    first = await register_product(catalogue, data_dir)
    new = "0x" + "6b" * 65
    second = await register_product(ProductCatalogue(product_store, lambda _digest: new, FakeClock(), tables), data_dir)
    assert (second.version, second.signature) == (first.version, new)
    assert await product_store.find_signature(first.version) == new


async def test_changed_content_is_a_new_version_and_the_old_table_stays(
    catalogue: ProductCatalogue, product_store: SqlProductStore, data_dir: Path
) -> None:
    """A job that was accepted on the old version keeps its own rows."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {"drop": ["name"]})
    first = await register_product(catalogue, data_dir)
    old = first.assets[PEOPLE_ID]
    before = old.path.read_bytes()
    (data_dir / "people.csv").write_text(PEOPLE + "somebody,44,a\n")
    second = await register_product(catalogue, data_dir)
    assert second.version != first.version
    kept = await product_store.find_asset_by_commitment(old.commitment)
    assert kept is not None
    assert kept.path.read_bytes() == before
    assert second.assets[PEOPLE_ID].path != kept.path


async def test_a_change_in_a_dropped_column_is_no_new_version(catalogue: ProductCatalogue, data_dir: Path) -> None:
    """What is not converted does not show, not even as a new version."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {"drop": ["name"]})
    first = await register_product(catalogue, data_dir)
    (data_dir / "people.csv").write_text(PEOPLE.replace("person 5,", "somebody else,"))
    assert (await register_product(catalogue, data_dir)).version == first.version


async def test_changed_rules_are_a_new_version_of_the_same_table(catalogue: ProductCatalogue, data_dir: Path) -> None:
    """Rules are signed with the data they are about."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {"drop": ["name"]})
    first = await register_product(catalogue, data_dir)
    declare(data_dir, {"drop": ["name"]}, rules={"policy": "any-code"})
    second = await register_product(catalogue, data_dir)
    assert second.version != first.version
    assert second.assets[PEOPLE_ID].commitment == first.assets[PEOPLE_ID].commitment


async def test_a_file_that_turned_bad_takes_its_product_off_the_offer(
    catalogue: ProductCatalogue, product_store: SqlProductStore, data_dir: Path, tmp_path: Path
) -> None:
    """Not the old version either: what the Earner changed may be what must not be served any more. Others stay."""
    (data_dir / "people.csv").write_text(PEOPLE)
    (data_dir / "other.csv").write_text("x\n1\n2\n")
    products = [{"id": "p", "assets": {"people": {"drop": ["name"]}}}, {"id": "q", "assets": ["other"]}]
    (data_dir / "products.yaml").write_text(json.dumps({"products": products}))
    await catalogue.register(read_products(data_dir), data_dir)
    assert [product.product_id for product in catalogue.list_products()] == ["p", "q"]
    (data_dir / "people.csv").write_text(PEOPLE + "a,b,c,d\n")
    (rejected,) = await catalogue.register(read_products(data_dir), data_dir)
    assert rejected.product_id == "p"
    assert "people.csv: line 99, column 4" in rejected.detail
    assert [product.product_id for product in catalogue.list_products()] == ["q"]
    assert await product_store.list_offered() == {"q"}
    assert list((tmp_path / "state" / "tables" / "incoming").iterdir()) == []


async def test_a_description_of_a_column_that_is_not_there_is_refused(catalogue: ProductCatalogue, data_dir: Path) -> None:
    """A mistyped name would publish a column without its range."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {"drop": ["name"], "columns": {"aeg": {"minimum": 0}}})
    (rejected,) = await catalogue.register(read_products(data_dir), data_dir)
    assert "describes the column 'aeg'" in rejected.detail


@pytest.mark.parametrize("asset", [{}, {"keep_flagged": []}, {"columns": {"name": {"description": "as written"}}}])
async def test_a_column_that_may_identify_people_is_not_published_without_a_word(
    catalogue: ProductCatalogue, product_store: SqlProductStore, data_dir: Path, asset: dict[str, Any]
) -> None:
    """A table stated by hand is looked at like one that was added: the product waits until the column is named."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, asset)
    (rejected,) = await catalogue.register(read_products(data_dir), data_dir)
    assert "name (its name says that it names people" in rejected.detail
    assert "name it under drop, or under keep_flagged" in rejected.detail
    assert catalogue.list_products() == []
    assert catalogue.rejected == [rejected]
    assert await product_store.list_offered() == set()


@pytest.mark.parametrize("asset", [{"drop": ["name"]}, {"keep_flagged": ["name"]}, {"keep": ["name", "age"]}])
async def test_a_column_that_is_named_is_decided(catalogue: ProductCatalogue, data_dir: Path, asset: dict[str, Any]) -> None:
    """By dropping it, by keeping it as flagged, or by a list of all that is kept."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, asset)
    columns = [column["name"] for column in (await register_product(catalogue, data_dir)).document["assets"][0]["schema"]]
    assert ("name" in columns) is ("drop" not in asset)


async def test_a_table_of_an_earlier_look_is_looked_at_again(
    catalogue: ProductCatalogue, product_store: SqlProductStore, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that knew fewer flags when it read the file does not go on serving what today's look finds."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {"keep_flagged": ["name"]})
    asset = (await register_product(catalogue, data_dir)).assets[PEOPLE_ID]
    assert asset.shape is not None
    blind = replace(asset.shape, columns=tuple(replace(column, flags=()) for column in asset.shape.columns))
    monkeypatch.setattr("pandacea.domain.table.FLAGS_VERSION", 1)
    old = read_products(data_dir)[0].assets[PEOPLE_ID].recipe.digest(hashlib.sha256(PEOPLE.encode()).hexdigest())
    monkeypatch.undo()
    await product_store.record_source(asset.commitment, old, "stamp", blind)
    declare(data_dir, {})
    (rejected,) = await catalogue.register(read_products(data_dir), data_dir)
    assert "may identify people" in rejected.detail


async def test_what_doctor_says_is_what_a_start_would(tables: TableStore, data_dir: Path) -> None:
    """Every source is read to its end, every column held against what is said of it; nothing is published."""
    (data_dir / "people.csv").write_text(PEOPLE)
    (data_dir / "late.csv").write_bytes(b"ward\n" + b"north\n" * 200_000 + "Köln\n".encode("latin-1"))
    products = [
        {"id": "good", "assets": {"people": {"drop": ["name"]}}},
        {"id": "flagged", "assets": ["people"]},
        {"id": "typo", "assets": {"people": {"drop": ["name"], "columns": {"agee": {"minimum": 0}}}}},
        {"id": "label", "assets": {"people": {"drop": ["name"], "columns": {"name": {"label": True}}}}},
        {"id": "latin", "assets": ["late"]},
    ]
    (data_dir / "products.yaml").write_text(json.dumps({"products": products}))
    found = [await check_product(stated, data_dir, tables) for stated in read_products(data_dir)]
    assert found[0] is None
    details = [one.detail for one in found[1:] if one is not None]
    assert len(details) == 4
    for detail, words in zip(details, ("may identify people", "column 'agee'", "the label 'name'", "line 200002"), strict=True):
        assert words in detail


async def test_a_folder_that_is_not_there_ends_no_offer(
    catalogue: ProductCatalogue, product_store: SqlProductStore, data_dir: Path
) -> None:
    """A mistyped or unmounted folder, and one whose products.yaml is gone, are refused; `products: []` is a word."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {"drop": ["name"]})
    await register_product(catalogue, data_dir)
    for folder, words in ((data_dir.with_name("dta"), "is not a folder here"), (data_dir / "empty", "is gone, and p is on offer")):
        (data_dir / "empty").mkdir(exist_ok=True)
        with pytest.raises(BadConfig, match=words):
            await read_declared_products(folder, product_store)
    (data_dir / "products.yaml").write_text("products: []\n")
    assert await read_declared_products(data_dir, product_store) == []


async def test_the_list_names_what_is_not_on_offer(
    catalogue: ProductCatalogue, product_store: SqlProductStore, data_dir: Path
) -> None:
    """Before the first start, and in a running node with the reason."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {})
    (before,) = (await ProductControl(product_store, data_dir).list_products({}))["not_offered"]
    assert before["detail"].startswith("Taken up by the next start")
    await catalogue.register(read_products(data_dir), data_dir)
    answer = await ProductControl(product_store, data_dir, catalogue).list_products({})
    assert "may identify people" in answer["not_offered"][0]["detail"]
    assert "p is NOT on offer: asset people has columns" in render_answer("products list", answer)


async def test_the_mock_has_the_types_of_the_table(catalogue: ProductCatalogue, data_dir: Path) -> None:
    """A rehearsal's frame is one of the same columns and types, from the mock's own stored table."""
    from pandacea.sandbox.guest import load_frame as guest_tables

    (data_dir / "people.csv").write_text(PEOPLE.replace("person 5,25", "person 5,"))
    declare(data_dir, {"drop": ["name"], "mock": {"rows": 7}, "columns": {"ward": {"categories": ["x", "y"]}}})
    asset = (await register_product(catalogue, data_dir)).assets[PEOPLE_ID]
    assert asset.mock is not None
    private, mock = (guest_tables.load_frame(os.open(path, os.O_RDONLY), "arrow") for path in (asset.path, asset.mock.table))
    assert dict(mock.dtypes) == dict(private.dtypes)
    assert len(mock) == 7
    assert set(mock["ward"]) <= {"x", "y"}


async def test_no_step_of_a_conversion_reads_twice_what_was_converted(
    tables: TableStore, data_dir: Path, catalogue: ProductCatalogue
) -> None:
    """A table is converted once, whoever asks for it next; a fresh record finds it by how it was made."""
    (data_dir / "people.csv").write_text(PEOPLE)
    declare(data_dir, {"drop": ["name"]})
    first = (await register_product(catalogue, data_dir)).assets[PEOPLE_ID]

    class Never:
        async def convert_table(self, *_: object) -> TableShape:
            raise AssertionError("converted again")

    tables._converter = Never()
    assert (await register_product(catalogue, data_dir)).assets[PEOPLE_ID] == first
