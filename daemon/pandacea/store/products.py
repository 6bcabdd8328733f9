"""Products, the versions of their assets, and the signed version of the whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import JSON, Column, LargeBinary, Text, UniqueConstraint, insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.store.session import Transaction


class Product(SQLModel, table=True):
    """What an Earner leases. `product_hash` = keccak256(utf-8 of the id), the contract's dataProductId."""

    __tablename__ = "product"

    product_id: str = Field(primary_key=True, max_length=64)
    product_hash: str = Field(max_length=66, unique=True)
    current_version: str | None = Field(default=None, max_length=66)
    withdrawn_at: float | None = None


class ProductVersion(SQLModel, table=True):
    """A product as it was published: the signed document, and the asset versions it opens."""

    __tablename__ = "product_version"

    version: str = Field(primary_key=True, max_length=66)
    product_id: str = Field(foreign_key="product.product_id", index=True, max_length=64)
    document: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    signature: str = Field(max_length=132)
    created_at: float


class AssetVersion(SQLModel, table=True):
    """One table as stored. `commitment` = HMAC-SHA-256(key, sha-256 of the stored bytes); the key never leaves the node."""

    __tablename__ = "asset_version"
    __table_args__ = (UniqueConstraint("product_id", "asset_id", "digest"),)

    commitment: str = Field(primary_key=True, max_length=64)
    product_id: str = Field(max_length=64)
    asset_id: str = Field(max_length=64)
    digest: str = Field(max_length=64)
    commitment_key: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    path: str = Field(sa_column=Column(Text, nullable=False))
    format: str = Field(max_length=16)
    size: int
    rows: int | None = None
    table_schema: list[dict[str, Any]] | None = Field(default=None, sa_column=Column(JSON, nullable=True))
    source: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    created_at: float


_product: Any = SQLModel.metadata.tables["product"]
_version: Any = SQLModel.metadata.tables["product_version"]
_asset: Any = SQLModel.metadata.tables["asset_version"]


async def asset(connection: AsyncConnection, product_id: str, asset_id: str, digest: str) -> RowMapping | None:
    """The version of an asset with this content, when it was registered before."""
    here = (_asset.c.product_id == product_id) & (_asset.c.asset_id == asset_id) & (_asset.c.digest == digest)
    return (await connection.execute(select(_asset).where(here))).mappings().first()


async def asset_by_commitment(connection: AsyncConnection, commitment: str) -> RowMapping | None:
    """The stored table behind a commitment."""
    return (await connection.execute(select(_asset).where(_asset.c.commitment == commitment))).mappings().first()


async def add_asset(tx: Transaction, values: dict[str, Any]) -> None:
    """Record a new asset version."""
    await tx.connection.execute(insert(_asset), [values])


async def publish(tx: Transaction, product: dict[str, Any], version: dict[str, Any]) -> None:
    """Make a version the current one; publishing the same version again changes nothing."""
    known = await tx.connection.execute(select(_product.c.product_id).where(_product.c.product_id == product["product_id"]))
    current = {"current_version": version["version"], "withdrawn_at": None}
    if known.first() is None:
        await tx.connection.execute(insert(_product), [{**product, "current_version": None}])
    held = await tx.connection.execute(select(_version.c.version).where(_version.c.version == version["version"]))
    if held.first() is None:
        await tx.connection.execute(insert(_version), [version])
    await tx.connection.execute(update(_product).where(_product.c.product_id == product["product_id"]).values(**current))


async def withdraw(tx: Transaction, product_id: str, now: float) -> None:
    """Take a product out of the catalogue; what was leased of it keeps its versions."""
    await tx.connection.execute(update(_product).where(_product.c.product_id == product_id).values(withdrawn_at=now))


async def current(connection: AsyncConnection) -> Sequence[RowMapping]:
    """Every product on offer, with its current version's document and signature."""
    query = (
        select(_product.c.product_id, _product.c.product_hash, _version)
        .join(_version, _version.c.version == _product.c.current_version)
        .where(_product.c.withdrawn_at.is_(None))
        .order_by(_product.c.product_id)
    )
    return (await connection.execute(query)).mappings().all()
