"""Build the product document: everything that becomes public about a product, and what its Earner signs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pandacea.catalogue.products_file import DeclaredProduct
from pandacea.domain.ids import AssetId
from pandacea.domain.product import Asset, rounded_rows
from pandacea.domain.table import ColumnDescription, DeclaredAsset, TableColumn, TableShape
from pandacea_sdk.protocol.json_types import JsonObject


def published_columns(shape: TableShape, descriptions: Mapping[str, ColumnDescription]) -> list[JsonObject]:
    """Return a table's columns as published: name, type, rounded share of missing values, and what the Earner typed."""
    return [
        {
            "name": column.name,
            "type": column.type,
            "missing": _missing(shape, column, descriptions.get(column.name, ColumnDescription())),
            **descriptions.get(column.name, ColumnDescription()).as_json(),
        }
        for column in shape.columns
    ]


def _missing(shape: TableShape, column: TableColumn, description: ColumnDescription) -> float:
    return shape.missing_share(column) if description.missing is None else description.missing


def build_document(declared: DeclaredProduct, assets: Mapping[AssetId, Asset]) -> JsonObject:
    """Return the document of one product version; its sha-256 (RFC 8785) is the version."""
    return {
        "product_id": declared.product_id,
        "name": declared.name,
        "description": declared.description,
        "data_type": declared.data_type,
        "keywords": list(declared.keywords),
        "price_wei": str(declared.price),
        "rules": declared.rules.as_json(),
        "assets": [_asset(declared.assets[asset.asset_id], asset) for asset in assets.values()],
    }


def _asset(declared: DeclaredAsset, asset: Asset) -> JsonObject:
    if asset.shape is None:
        raise ValueError(f"asset {asset.asset_id} has no shape: its table was never converted")
    published: JsonObject = {
        "asset_id": asset.asset_id,
        "description": declared.description,
        "schema": published_columns(asset.shape, declared.columns),
        "rows_rounded": rounded_rows(asset.shape.rows),
        "commitment": asset.commitment,
    }
    if asset.mock is not None:
        published["mock"] = {"rows": declared.mock_rows, "seed": declared.mock_seed, "sha256": asset.mock.sha256}
    return published


def unknown_columns(columns: Sequence[TableColumn], descriptions: Mapping[str, ColumnDescription]) -> list[str]:
    """Return columns that are described but not kept: most likely typing mistakes."""
    return sorted(set(descriptions) - {column.name for column in columns})
