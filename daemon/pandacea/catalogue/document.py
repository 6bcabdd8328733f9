"""The product document: everything that becomes public about a product, and what its Earner signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pandacea.catalogue.products_file import DeclaredProduct
from pandacea.domain.ids import AssetId
from pandacea.domain.product import Asset, rounded_rows
from pandacea.domain.table import ColumnDescription, DeclaredAsset, TableColumn, TableShape


def published_columns(shape: TableShape, described: Mapping[str, ColumnDescription]) -> list[dict[str, Any]]:
    """A table's columns as the world sees them: name, type, rounded share of missing values, and what the Earner typed."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "missing": _missing(shape, column, described.get(column.name, ColumnDescription())),
            **described.get(column.name, ColumnDescription()).as_json(),
        }
        for column in shape.columns
    ]


def _missing(shape: TableShape, column: TableColumn, described: ColumnDescription) -> float:
    return shape.missing_share(column) if described.missing is None else described.missing


def build_document(stated: DeclaredProduct, assets: Mapping[AssetId, Asset]) -> dict[str, Any]:
    """The document of one product version; its sha-256 (RFC 8785) is the version."""
    return {
        "product_id": stated.product_id,
        "name": stated.name,
        "description": stated.description,
        "data_type": stated.data_type,
        "keywords": list(stated.keywords),
        "price_wei": str(stated.price),
        "rules": stated.rules.as_json(),
        "assets": [_asset(stated.assets[asset.asset_id], asset) for asset in assets.values()],
    }


def _asset(stated: DeclaredAsset, asset: Asset) -> dict[str, Any]:
    if asset.shape is None:
        raise ValueError(f"asset {asset.asset_id} has no shape: its table was never converted")
    published: dict[str, Any] = {
        "asset_id": asset.asset_id,
        "description": stated.description,
        "schema": published_columns(asset.shape, stated.columns),
        "rows_rounded": rounded_rows(asset.shape.rows),
        "commitment": asset.commitment,
    }
    if asset.mock is not None:
        published["mock"] = {"rows": stated.mock_rows, "seed": stated.mock_seed, "sha256": asset.mock.sha256}
    return published


def unknown_columns(columns: Sequence[TableColumn], described: Mapping[str, ColumnDescription]) -> list[str]:
    """Columns that are described but not kept: most likely a typing mistake."""
    return sorted(set(described) - {column.name for column in columns})
