"""Products, their signed versions, and the versions of their assets."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from sqlalchemy import JSON, BigInteger, Column, ColumnElement, LargeBinary, Text, UniqueConstraint, insert, select, update
from sqlmodel import Field, SQLModel

from pandacea.domain.ids import AssetId, Hash32
from pandacea.domain.product import Asset, Product
from pandacea.domain.table import TableShape
from pandacea.store.database_engine import DatabaseEngine
from pandacea_sdk.protocol.json_types import JsonObject


class ProductRow(SQLModel, table=True):
    """A product an Earner leases. `product_hash` = keccak256(utf-8 of the id), the contract's dataProductId."""

    __tablename__ = "product"

    product_id: str = Field(primary_key=True, max_length=64)
    product_hash: str = Field(max_length=66, unique=True)
    current_version: str | None = Field(default=None, max_length=66)
    withdrawn_at: float | None = None


class ProductVersionRow(SQLModel, table=True):
    """A product as it was published: the signed document, which names the asset versions."""

    __tablename__ = "product_version"

    version: str = Field(primary_key=True, max_length=66)
    product_id: str = Field(foreign_key="product.product_id", index=True, max_length=64)
    document: JsonObject = Field(sa_column=Column(JSON, nullable=False))
    signature: str = Field(max_length=132)
    created_at: float


class AssetVersionRow(SQLModel, table=True):
    """One version of an asset's table. `commitment` = HMAC-SHA-256(key, digest of the stored bytes); neither leaves the node."""

    __tablename__ = "asset_version"
    __table_args__ = (UniqueConstraint("product_id", "asset_id", "digest"),)

    commitment: str = Field(primary_key=True, max_length=64)
    product_id: str = Field(max_length=64)
    asset_id: str = Field(max_length=64)
    digest: str = Field(max_length=64)
    commitment_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    path: str = Field(sa_column=Column(Text, nullable=False))
    format: str = Field(max_length=16)
    size: int = Field(sa_type=BigInteger)
    rows: int | None = Field(default=None, sa_type=BigInteger)
    table_schema: list[JsonObject] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    recipe: str | None = Field(default=None, index=True, max_length=64)
    """sha-256 over the source's bytes and how it was read."""
    stamp: str | None = Field(default=None, sa_column=Column(Text, nullable=True))
    """The source file's identity, size and times when it was read: while they are unchanged it is not read again."""
    created_at: float


_product: Final = SQLModel.metadata.tables["product"]
_version: Final = SQLModel.metadata.tables["product_version"]
_asset: Final = SQLModel.metadata.tables["asset_version"]


class SqlProductStore:
    """`flows.unit_of_work.ProductStore` on SQLite or PostgreSQL; each call is a transaction of its own, for registration is rare."""

    def __init__(self, database: DatabaseEngine) -> None:
        """`database`: the node's one engine."""
        self._database = database

    async def list_offered(self) -> set[str]:
        """List the ids of the products on offer."""
        query = select(_product.c.product_id).where(_product.c.withdrawn_at.is_(None))
        async with self._database.read_connection() as connection:
            return {row[0] for row in (await connection.execute(query)).all()}

    async def list_current_versions(self) -> list[ProductVersionRow]:
        """List the current version of every product on offer, by id."""
        query = (
            select(_version)
            .join(_product, _product.c.current_version == _version.c.version)
            .where(_product.c.withdrawn_at.is_(None))
            .order_by(_version.c.product_id)
        )
        async with self._database.read_connection() as connection:
            return [ProductVersionRow(**row) for row in (await connection.execute(query)).mappings().all()]

    async def list_offered_hashes(self) -> set[str]:
        """List keccak256 of the ids of the products on offer, by which leases name them."""
        query = select(_product.c.product_hash).where(_product.c.withdrawn_at.is_(None))
        async with self._database.read_connection() as connection:
            return {row[0] for row in (await connection.execute(query)).all()}

    async def find_offered_id(self, product_hash: Hash32) -> str | None:
        """Return the id of the product on offer with this hash, or None."""
        query = select(_product.c.product_id).where((_product.c.product_hash == product_hash) & _product.c.withdrawn_at.is_(None))
        async with self._database.read_connection() as connection:
            row = (await connection.execute(query)).first()
        return None if row is None else str(row[0])

    async def find_signature(self, version: Hash32) -> str | None:
        """Return the signature of a version, or None when it was not published."""
        async with self._database.read_connection() as connection:
            row = (await connection.execute(select(_version.c.signature).where(_version.c.version == version))).first()
        return None if row is None else str(row[0])

    async def publish_version(self, product: Product, now: float) -> None:
        """Make a version the current one; publishing it again changes its signature, if anything. `now` in Unix seconds."""
        named = _product.c.product_id == product.product_id
        async with self._database.write_transaction() as tx:
            if (await tx.connection.execute(select(_product.c.product_id).where(named))).first() is None:
                row = {"product_id": product.product_id, "product_hash": product.product_hash}
                await tx.connection.execute(insert(_product), [row])
            if (
                await tx.connection.execute(select(_version.c.version).where(_version.c.version == product.version))
            ).first() is None:
                values = {
                    "version": product.version,
                    "product_id": product.product_id,
                    "document": product.document,
                    "signature": product.signature,
                    "created_at": now,
                }
                await tx.connection.execute(insert(_version), [values])
            else:
                signed = update(_version).where(_version.c.version == product.version).values(signature=product.signature)
                await tx.connection.execute(signed)
            current = update(_product).where(named).values(current_version=product.version, withdrawn_at=None)
            await tx.connection.execute(current)
            await tx.commit()

    async def withdraw_product(self, product_id: str, now: float) -> None:
        """Take a product off offer; its versions stay."""
        async with self._database.write_transaction() as tx:
            gone = update(_product).where(_product.c.product_id == product_id).values(withdrawn_at=now)
            await tx.connection.execute(gone)
            await tx.commit()

    async def find_asset(self, product_id: str, asset_id: AssetId, digest: str) -> Asset | None:
        """Return the asset version with this content, or None."""
        here = (_asset.c.product_id == product_id) & (_asset.c.asset_id == asset_id) & (_asset.c.digest == digest)
        return await self._select_asset(here)

    async def find_asset_by_recipe(self, product_id: str, asset_id: AssetId, recipe: str) -> Asset | None:
        """Return the asset version made from this source content in this way, or None."""
        return await self._select_asset(
            (_asset.c.product_id == product_id) & (_asset.c.asset_id == asset_id) & (_asset.c.recipe == recipe)
        )

    async def record_source(self, commitment: str, recipe: str, stamp: str, shape: TableShape) -> None:
        """Store from which source an asset version can be made again, and its columns as they were found last."""
        async with self._database.write_transaction() as tx:
            values = {"recipe": recipe, "stamp": stamp, "table_schema": shape.to_json()["schema"]}
            noted = update(_asset).where(_asset.c.commitment == commitment).values(values)
            await tx.connection.execute(noted)
            await tx.commit()

    async def find_asset_by_commitment(self, commitment: str) -> Asset | None:
        """Return the asset version with this commitment, or None."""
        return await self._select_asset(_asset.c.commitment == commitment)

    async def add_asset(self, product_id: str, asset: Asset, digest: str, key: bytes, size: int, now: float) -> None:
        """Insert a new asset version; `digest` and `key` never leave the node."""
        row = {
            "commitment": asset.commitment,
            "product_id": product_id,
            "asset_id": asset.asset_id,
            "digest": digest,
            "commitment_key": key,
            "path": str(asset.path),
            "format": asset.format,
            "size": size,
            "rows": None if asset.shape is None else asset.shape.rows,
            "table_schema": None if asset.shape is None else asset.shape.to_json()["schema"],
            "created_at": now,
        }
        async with self._database.write_transaction() as tx:
            await tx.connection.execute(insert(_asset), [row])
            await tx.commit()

    async def _select_asset(self, where: ColumnElement[bool]) -> Asset | None:
        async with self._database.read_connection() as connection:
            row = (await connection.execute(select(_asset).where(where))).mappings().first()
        if row is None:
            return None
        kept = {"schema": row["table_schema"], "rows": row["rows"]}
        shape = None if row["table_schema"] is None else TableShape.from_json(kept)
        return Asset(row["asset_id"], row["commitment"], Path(row["path"]), row["format"], shape)
