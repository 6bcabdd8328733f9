"""Register products: convert their sources, commit to their content, sign the version, and record all of it in the database."""

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
from pandacea.catalogue.sources import SourceFile, open_source
from pandacea.catalogue.table_store import TableStore
from pandacea.domain.ids import AssetId, Hash32
from pandacea.domain.product import Asset, Product
from pandacea.domain.table import DeclaredAsset, SourceFormat, TableShape
from pandacea.errors import BadConfig
from pandacea.flows.ports import Clock, UnreadableSource
from pandacea.flows.unit_of_work import ProductStore
from pandacea_sdk.protocol.hashing import keccak256

log = structlog.get_logger(__name__)

OnAssetProgress = Callable[[str, float, float], None]
"""Called now and then during a conversion with an asset's id, what is done and the total."""


class ProductCatalogue:
    """Every product on offer, in memory; `flows.ports.Catalogue`."""

    def __init__(self, store: ProductStore, sign: Callable[[bytes], str], clock: Clock, tables: TableStore) -> None:
        """`sign`: makes the Earner's EIP-191 signature over 32 bytes, as 0x hex."""
        self._store = store
        self._sign = sign
        self._clock = clock
        self._tables = tables
        self._by_hash: dict[Hash32, Product] = {}
        self.rejected: list[RejectedProduct] = []
        """Which of the products declared last are not on offer, and why."""

    def find_by_hash(self, product_hash: Hash32) -> Product | None:
        """Return the product that a lease's `dataProductId` names."""
        return self._by_hash.get(product_hash)

    def find_by_id(self, product_id: str) -> Product | None:
        """Return the product with this id."""
        return next((product for product in self._by_hash.values() if product.product_id == product_id), None)

    def list_products(self) -> list[Product]:
        """Return every product on offer, by id."""
        return sorted(self._by_hash.values(), key=lambda product: product.product_id)

    async def register(
        self, declared: list[DeclaredProduct], data_dir: Path, on_progress: OnAssetProgress | None = None
    ) -> list[RejectedProduct]:
        """Offer what the Earner declares, and nothing else: new content becomes a new version, unchanged content changes nothing.

        A product whose source cannot be used is not offered, in no version: what the Earner changed may be what must not be served any
        more. The others are. Returns the products that are not offered, and why.

        Raises:
            Unavailable, Broken: the sandbox or the disk failed; the catalogue is as before.
        """
        products, rejected = {}, []
        for product in declared:
            try:
                published = await self._publish(product, data_dir, on_progress or _log_progress)
            except (BadConfig, UnreadableSource) as error:
                rejected.append(RejectedProduct(product.product_id, error.detail))
            else:
                products[published.product_hash] = published
        for one in rejected:
            log.error("product.not_offered", product_id=one.product_id, reason=one.detail)
        for product_id in await self._store.list_offered() - {product.product_id for product in products.values()}:
            await self._store.withdraw_product(product_id, self._clock.now())
            log.warning("product.withdrawn", product_id=product_id)
        self._by_hash, self.rejected = products, rejected
        self._log_unlisted_files(declared, data_dir)
        return rejected

    async def _publish(self, declared: DeclaredProduct, data_dir: Path, on_progress: OnAssetProgress) -> Product:
        assets = {
            asset_id: await self._make_asset(declared, asset_id, data_dir, on_progress) for asset_id in sorted(declared.assets)
        }
        signed = build_document(declared, assets)
        version = Hash32("0x" + hashlib.sha256(rfc8785.dumps(signed)).hexdigest())
        known_signature = await self._store.find_signature(version)
        # Each time: where the key changed since, Spenders would refuse an offer that the replaced operator signed.
        signature = await asyncio.to_thread(self._sign, bytes.fromhex(version[2:]))
        product_hash = Hash32("0x" + keccak256(declared.product_id.encode()).hex())
        product = Product(declared.product_id, product_hash, version, declared.rules, declared.price, assets, signed, signature)
        await self._store.publish_version(product, self._clock.now())
        if known_signature is None:
            log.info("product.published", product_id=declared.product_id, version=version, assets=sorted(assets))
        elif known_signature != signature:
            log.info("product.signed_again", product_id=declared.product_id, version=version, reason="the signing key changed")
        return product

    async def _make_asset(
        self, declared: DeclaredProduct, asset_id: AssetId, data_dir: Path, on_progress: OnAssetProgress
    ) -> Asset:
        declared_asset = declared.assets[asset_id]
        try:
            with open_source(declared_asset.source, data_dir) as source:
                asset, shape = await self._convert_table(declared.product_id, asset_id, declared_asset, source, on_progress)
        except UnreadableSource as error:
            raise UnreadableSource(f"{declared_asset.source.name}: {error.detail}") from error
        check_shape(asset_id, declared_asset, shape)
        text = mock_csv(published_columns(shape, declared_asset.columns), declared_asset.mock_rows, declared_asset.mock_seed)
        types = {column.name: column.type for column in shape.columns}
        as_nan = declared_asset.recipe.format in {SourceFormat.CSV, SourceFormat.SQLITE}
        return replace(asset, mock=await self._tables.store_mock(text, types, missing_as_nan=as_nan))

    async def _convert_table(
        self, product_id: str, asset_id: AssetId, declared_asset: DeclaredAsset, source: SourceFile, on_progress: OnAssetProgress
    ) -> tuple[Asset, TableShape]:
        """Return the asset version of this content and its shape: the known one, or a new one that is recorded when it is whole."""
        recipe_digest = await asyncio.to_thread(source.recipe_digest, declared_asset.recipe)
        source.check_unchanged()
        known = await self._store.find_asset_by_recipe(product_id, asset_id, recipe_digest)
        if known is not None and known.shape is not None and known.path.is_file():
            return known, known.shape
        table = await self._tables.convert_source(
            source, declared_asset.recipe, recipe_digest, lambda done, total: on_progress(asset_id, done, total)
        )
        known = await self._store.find_asset(product_id, asset_id, table.digest)
        if known is None:
            key = secrets.token_bytes(32)
            commitment = hmac.new(key, bytes.fromhex(table.digest), hashlib.sha256).hexdigest()
            known = Asset(asset_id, commitment, table.path, "arrow", table.shape)
            await self._store.add_asset(product_id, known, table.digest, key, table.size, self._clock.now())
        known = replace(known, shape=table.shape)  # an earlier conversion may have known fewer flags
        await self._store.record_source(known.commitment, recipe_digest, source.stamp, table.shape)
        return known, table.shape

    def _log_unlisted_files(self, declared: list[DeclaredProduct], data_dir: Path) -> None:
        named = {path.relative_to(data_dir).parts[0] for product in declared for path in product.files.values()} | {"products.yaml"}
        unlisted = sorted(path.name for path in data_dir.iterdir() if path.name not in named) if data_dir.is_dir() else []
        if unlisted:
            log.warning(
                "catalogue.unlisted_files", files=unlisted[:20], count=len(unlisted), reason="in no product: served to nobody"
            )


def _log_progress(asset_id: str, done: float, total: float) -> None:
    log.debug("table.converting", asset_id=asset_id, share=round(done / total, 3) if total else None)
