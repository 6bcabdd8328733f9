"""The registered products: sources converted, content committed to, the version signed, all of it in the database."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import rfc8785
import structlog

from pandacea.catalogue.document import build_document, published_columns
from pandacea.catalogue.mock import mock_csv
from pandacea.catalogue.product_checks import RejectedProduct, check_shape
from pandacea.catalogue.products_file import DeclaredProduct
from pandacea.catalogue.sources import SourceFile, hash_file, open_source
from pandacea.catalogue.table_store import TableStore
from pandacea.domain.ids import AssetId, Hash32
from pandacea.domain.product import Asset, Mock, Product
from pandacea.domain.table import DeclaredAsset, SourceFormat, TableShape
from pandacea.errors import BadConfig
from pandacea.flows.conversion import UnreadableSource
from pandacea.flows.ports import Clock
from pandacea.flows.unit_of_work import ProductStore
from pandacea_sdk.protocol.hashing import keccak256

log = structlog.get_logger(__name__)

OnAssetProgress = Callable[[str, float, float], None]
"""Called with an asset's id, what is done and the total, now and then during a conversion."""


class ProductCatalogue:
    """Every product on offer, in memory; `flows.ports.Catalogue`."""

    def __init__(self, book: ProductStore, sign: Callable[[bytes], str], clock: Clock, tables: TableStore) -> None:
        """Take the database's product book and the Earner's signature: `sign(32 bytes) -> 0x hex`, EIP-191."""
        self._book = book
        self._sign = sign
        self._clock = clock
        self._tables = tables
        self._by_hash: dict[Hash32, Product] = {}
        self.rejected: list[RejectedProduct] = []
        """Which of the products stated last are not on offer, and why."""

    def find_by_hash(self, product_hash: Hash32) -> Product | None:
        """The product a lease's `dataProductId` names."""
        return self._by_hash.get(product_hash)

    def find_by_id(self, product_id: str) -> Product | None:
        """The product with this id."""
        return next((product for product in self._by_hash.values() if product.product_id == product_id), None)

    def list_products(self) -> list[Product]:
        """Every product on offer, by id."""
        return sorted(self._by_hash.values(), key=lambda product: product.product_id)

    async def register(
        self, stated: list[DeclaredProduct], data_dir: Path, on_progress: OnAssetProgress | None = None
    ) -> list[RejectedProduct]:
        """Make the catalogue what the Earner states: new content becomes a new version, unchanged content changes nothing.

        A product whose source cannot be used is not on offer, in no version: what the Earner changed may be what must not be served any
        more. The others are. Returned: which are not, and why.

        Raises:
            Unavailable, Broken: the sandbox or the disk failed; the catalogue is as before.
        """
        products, troubles = {}, []
        for product in stated:
            try:
                published = await self._publish(product, data_dir, on_progress or _log_progress)
            except (BadConfig, UnreadableSource) as problem:
                troubles.append(RejectedProduct(product.product_id, problem.detail))
                log.error("product.not_offered", product_id=product.product_id, problem=problem.detail)  # noqa: TRY400 - the sentence says it all
            else:
                products[published.product_hash] = published
        for product_id in await self._book.list_offered() - {product.product_id for product in products.values()}:
            await self._book.withdraw_product(product_id, self._clock.now())
            log.warning("product.withdrawn", product_id=product_id)
        self._by_hash, self.rejected = products, troubles
        self._log_unlisted_files(stated, data_dir)
        return troubles

    async def _publish(self, stated: DeclaredProduct, data_dir: Path, on_progress: OnAssetProgress) -> Product:
        assets = {asset_id: await self._make_asset(stated, asset_id, data_dir, on_progress) for asset_id in sorted(stated.assets)}
        signed = build_document(stated, assets)
        version = Hash32("0x" + hashlib.sha256(rfc8785.dumps(signed)).hexdigest())
        held = await self._book.find_signature(version)
        signature = held if held is not None else await asyncio.to_thread(self._sign, bytes.fromhex(version[2:]))
        product_hash = Hash32("0x" + keccak256(stated.product_id.encode()).hex())
        product = Product(stated.product_id, product_hash, version, stated.rules, stated.price, assets, signed, signature)
        await self._book.publish_version(product, self._clock.now())
        if held is None:
            log.info("product.published", product_id=stated.product_id, version=version, assets=sorted(assets))
        return product

    async def _make_asset(self, stated: DeclaredProduct, asset_id: AssetId, data_dir: Path, on_progress: OnAssetProgress) -> Asset:
        said = stated.assets[asset_id]
        try:
            with open_source(said.source, data_dir) as source:
                asset, shape = await self._convert_table(stated.product_id, asset_id, said, source, on_progress)
        except UnreadableSource as problem:
            raise UnreadableSource(f"{said.source.name}: {problem.detail}") from problem
        check_shape(asset_id, said, shape)
        text = mock_csv(published_columns(shape, said.columns), said.mock_rows, said.mock_seed)
        types = {column.name: column.type for column in shape.columns}
        as_nan = said.recipe.format in {SourceFormat.CSV, SourceFormat.SQLITE}
        digest, csv, table = await self._tables.store_mock(text, types, missing_as_nan=as_nan)
        return replace(asset, mock=Mock(digest, csv, table))

    async def _convert_table(
        self, product_id: str, asset_id: AssetId, said: DeclaredAsset, source: SourceFile, on_progress: OnAssetProgress
    ) -> tuple[Asset, TableShape]:
        """Return the asset version of this content and its shape: the known one, or a new one that is recorded when it is whole."""
        digest, _ = await asyncio.to_thread(hash_file, source.descriptor)
        source.check_unchanged()
        recipe = said.recipe.digest(digest)
        known = await self._book.find_asset_by_recipe(product_id, asset_id, recipe)
        if known is not None and known.shape is not None and known.path.is_file():
            return known, known.shape
        made = await self._tables.convert_source(
            source, said.recipe, recipe, lambda done, total: on_progress(asset_id, done, total)
        )
        known = await self._book.find_asset(product_id, asset_id, made.digest)
        if known is None:
            key = secrets.token_bytes(32)
            commitment = hmac.new(key, bytes.fromhex(made.digest), hashlib.sha256).hexdigest()
            known = Asset(asset_id, commitment, made.path, "arrow", made.shape)
            await self._book.add_asset(product_id, known, made.digest, key, made.size, self._clock.now())
        known = replace(known, shape=made.shape)  # an earlier conversion may have known fewer flags
        await self._book.record_source(known.commitment, recipe, source.stamp, made.shape)
        return known, made.shape

    def _log_unlisted_files(self, stated: list[DeclaredProduct], data_dir: Path) -> None:
        named = {path.relative_to(data_dir).parts[0] for product in stated for path in product.files.values()} | {"products.yaml"}
        strays = sorted(path.name for path in data_dir.iterdir() if path.name not in named) if data_dir.is_dir() else []
        if strays:
            log.warning("catalogue.unnamed_files", files=strays[:20], count=len(strays), meaning="in no product: served to nobody")


def _log_progress(asset_id: str, done: float, total: float) -> None:
    log.debug("table.converting", asset_id=asset_id, share=round(done / total, 3) if total else None)
