"""Products in the database: published once however often, withdrawn and offered again, found by what leases name them by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pandacea.domain.ids import AssetId, Hash32
from pandacea.store.products import SqlProductBook
from pandacea.store.session import Database
from tests.fakes import product

DIGEST = "d" * 64


async def test_a_version_is_published_once_and_replaced_by_the_next(database: Database, tmp_path: Path) -> None:
    """Publishing again changes nothing; another version is the current one from then on, and the old one stays known."""
    book, first = SqlProductBook(database), replace(product(tmp_path / "a.csv"), document={"rows": 2**60, "name": "\u0000é"})
    await book.publish(first, 1.5)
    await book.publish(first, 2.5)
    (current,) = await book.current()
    assert (current.version, current.document, current.created_at) == (first.version, first.document, 1.5)
    second = replace(first, version=Hash32("0x" + "7" * 64), signature="0x02")
    await book.publish(second, 3.0)
    assert [version.version for version in await book.current()] == [second.version]
    assert await book.version(first.version) == first.signature
    assert await book.version(Hash32("0x" + "8" * 64)) is None


async def test_a_product_is_withdrawn_and_offered_again(database: Database, tmp_path: Path) -> None:
    """Its versions stay; leases find it by the hash of its id only while it is offered."""
    book, one = SqlProductBook(database), product(tmp_path / "a.csv")
    await book.publish(one, 1.0)
    assert await book.offered_hashes() == {one.product_hash}
    await book.withdraw(one.product_id, 2.0)
    assert (await book.offered(), await book.offered_hashes(), await book.current()) == (set(), set(), [])
    await book.publish(one, 3.0)
    assert await book.offered() == {one.product_id}


async def test_an_asset_is_found_by_content_by_recipe_and_by_commitment(database: Database, tmp_path: Path) -> None:
    """The same file read again in the same way is the same asset version."""
    book = SqlProductBook(database)
    schema = [{"name": "x", "type": "int64", "missing": 0, "flags": []}]
    asset = replace(product(tmp_path / "a.csv").assets[AssetId("a")], schema=schema, rows=2**40)
    await book.add_asset("p", asset, DIGEST, b"\x00key", 2**40, 1.0)
    await book.seen(asset.commitment, "r" * 64, "stamp", asset.schema)
    for found in (
        await book.asset("p", asset.asset_id, DIGEST),
        await book.asset_by_recipe("p", asset.asset_id, "r" * 64),
        await book.asset_by_commitment(asset.commitment),
    ):
        assert found == asset
    assert await book.asset("p", asset.asset_id, "e" * 64) is None
