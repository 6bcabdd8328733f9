"""Products in the database: published once however often, withdrawn and offered again, found by what leases name them by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pandacea.domain.ids import AssetId, Hash32
from pandacea.domain.table import TableColumn, TableShape
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.products import SqlProductStore
from tests.fakes import product

DIGEST = "d" * 64


async def test_a_version_is_published_once_and_replaced_by_the_next(database: DatabaseEngine, tmp_path: Path) -> None:
    """Publishing again changes nothing; another version is the current one from then on, and the old one stays known."""
    book, first = SqlProductStore(database), replace(product(tmp_path / "a.csv"), document={"rows": 2**60, "name": "\u0000é"})
    await book.publish_version(first, 1.5)
    await book.publish_version(first, 2.5)
    (current,) = await book.list_current_versions()
    assert (current.version, current.document, current.created_at) == (first.version, first.document, 1.5)
    second = replace(first, version=Hash32("0x" + "7" * 64), signature="0x02")
    await book.publish_version(second, 3.0)
    assert [version.version for version in await book.list_current_versions()] == [second.version]
    assert await book.find_signature(first.version) == first.signature
    assert await book.find_signature(Hash32("0x" + "8" * 64)) is None
    await book.publish_version(replace(second, signature="0x03"), 4.0)
    (current,) = await book.list_current_versions()
    assert (current.signature, current.created_at) == ("0x03", 3.0), "another key signs the same version"


async def test_a_product_is_withdrawn_and_offered_again(database: DatabaseEngine, tmp_path: Path) -> None:
    """Its versions stay; leases find it by the hash of its id only while it is offered."""
    book, one = SqlProductStore(database), product(tmp_path / "a.csv")
    await book.publish_version(one, 1.0)
    assert await book.list_offered_hashes() == {one.product_hash}
    await book.withdraw_product(one.product_id, 2.0)
    assert (await book.list_offered(), await book.list_offered_hashes(), await book.list_current_versions()) == (set(), set(), [])
    await book.publish_version(one, 3.0)
    assert await book.list_offered() == {one.product_id}


async def test_an_asset_is_found_by_content_by_recipe_and_by_commitment(database: DatabaseEngine, tmp_path: Path) -> None:
    """The same file read again in the same way is the same asset version."""
    book = SqlProductStore(database)
    shape = TableShape((TableColumn("x", "int64"),), 2**40)
    asset = replace(product(tmp_path / "a.csv").assets[AssetId("a")], shape=shape)
    await book.add_asset("p", asset, DIGEST, b"\x00key", 2**40, 1.0)
    await book.record_source(asset.commitment, "r" * 64, "stamp", shape)
    for found in (
        await book.find_asset("p", asset.asset_id, DIGEST),
        await book.find_asset_by_recipe("p", asset.asset_id, "r" * 64),
        await book.find_asset_by_commitment(asset.commitment),
    ):
        assert found == asset
    assert await book.find_asset("p", asset.asset_id, "e" * 64) is None
