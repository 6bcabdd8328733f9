"""The registered products: sources read safely, content committed to, the version signed, all of it in the database."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import rfc8785
import structlog

from pandacea.catalogue.products_file import StatedProduct
from pandacea.domain.ids import AssetId, Hash32
from pandacea.domain.product import Asset, Product, rounded_rows
from pandacea.errors import BadConfig
from pandacea.flows.ports import Clock, ProductBook
from pandacea_sdk.protocol.hashing import keccak256

log = structlog.get_logger(__name__)
CHUNK = 1 << 20


class Catalogue:
    """Every product on offer, in memory; `flows.ports.Catalogue`."""

    def __init__(self, book: ProductBook, sign: Callable[[bytes], str], clock: Clock) -> None:
        """Take the database's product book and the Earner's signature: `sign(32 bytes) -> 0x hex`, EIP-191."""
        self._book = book
        self._sign = sign
        self._clock = clock
        self._by_hash: dict[Hash32, Product] = {}

    def by_hash(self, product_hash: Hash32) -> Product | None:
        """The product a lease's `dataProductId` names."""
        return self._by_hash.get(product_hash)

    def by_id(self, product_id: str) -> Product | None:
        """The product with this id."""
        return next((product for product in self._by_hash.values() if product.product_id == product_id), None)

    def all(self) -> list[Product]:
        """Every product on offer, by id."""
        return sorted(self._by_hash.values(), key=lambda product: product.product_id)

    async def register(self, stated: list[StatedProduct], data_dir: Path) -> None:
        """Make the catalogue what the Earner states: new content becomes a new version, unchanged content changes nothing.

        Raises:
            BadConfig: a source is no regular file beneath the data folder, or changed while it was read.
        """
        products = {}
        for product in stated:
            published = await self._publish(product, data_dir)
            products[published.product_hash] = published
        for product_id in await self._book.offered() - {product.product_id for product in products.values()}:
            await self._book.withdraw(product_id, self._clock.now())
            log.info("product.withdrawn", product_id=product_id)
        self._by_hash = products
        self._name_strays(stated, data_dir)

    async def _publish(self, stated: StatedProduct, data_dir: Path) -> Product:
        assets = {asset_id: await self._asset(stated, asset_id, data_dir) for asset_id in sorted(stated.files)}
        document = _document(stated, assets)
        version = Hash32("0x" + hashlib.sha256(rfc8785.dumps(document)).hexdigest())
        held = await self._book.version(version)
        signature = held if held is not None else await asyncio.to_thread(self._sign, bytes.fromhex(version[2:]))
        product_hash = Hash32("0x" + keccak256(stated.product_id.encode()).hex())
        product = Product(stated.product_id, product_hash, version, stated.rules, stated.price, assets, document, signature)
        await self._book.publish(product, self._clock.now())
        if held is None:
            log.info("product.published", product_id=stated.product_id, version=version, assets=sorted(assets))
        return product

    async def _asset(self, stated: StatedProduct, asset_id: AssetId, data_dir: Path) -> Asset:
        source = stated.files[asset_id]
        digest, size = await asyncio.to_thread(digest_of, source, data_dir)
        known = await self._book.asset(stated.product_id, asset_id, digest)
        if known is not None:
            return known
        key = secrets.token_bytes(32)
        commitment = hmac.new(key, bytes.fromhex(digest), hashlib.sha256).hexdigest()
        asset = Asset(asset_id, commitment, source, source.suffix.lstrip("."))
        await self._book.add_asset(stated.product_id, asset, digest, key, size, self._clock.now())
        return asset

    def _name_strays(self, stated: list[StatedProduct], data_dir: Path) -> None:
        named = {path.name for product in stated for path in product.files.values()} | {"products.yaml"}
        strays = sorted(path.name for path in data_dir.iterdir() if path.name not in named) if data_dir.is_dir() else []
        if strays:
            log.warning("catalogue.unnamed_files", files=strays[:20], count=len(strays), meaning="in no product: served to nobody")


def _document(stated: StatedProduct, assets: Mapping[AssetId, Asset]) -> dict[str, Any]:
    return {
        "product_id": stated.product_id,
        "name": stated.name,
        "description": stated.description,
        "data_type": stated.data_type,
        "keywords": list(stated.keywords),
        "price_wei": str(stated.price),
        "rules": stated.rules.as_json(),
        "assets": [
            {
                "asset_id": asset.asset_id,
                "schema": asset.schema,
                "rows_rounded": rounded_rows(asset.rows),
                "commitment": asset.commitment,
            }
            for asset in assets.values()
        ],
    }


def digest_of(source: Path, beneath: Path) -> tuple[str, int]:
    """sha-256 (hex) and size of a regular file beneath a folder, refused when it is a link or changes while it is read.

    Raises:
        BadConfig: says what the file is instead.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        raise BadConfig(
            f"{source} cannot be opened: {problem.strerror}. It must be a regular file, no link, in {beneath}."
        ) from problem
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise BadConfig(f"{source} is no regular file; a table must be one.")
        if not source.resolve().is_relative_to(beneath.resolve()):
            raise BadConfig(f"{source} lies outside {beneath}.")
        sha256 = hashlib.sha256()
        while chunk := file.read(CHUNK):
            sha256.update(chunk)
        after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise BadConfig(f"{source} changed while it was read; register it again when nothing writes to it.")
    return sha256.hexdigest(), after.st_size
