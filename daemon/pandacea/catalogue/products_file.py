"""Read products.yaml in the data folder: what the Earner leases, and under which rules."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Final

import yaml

from pandacea.catalogue.declared_assets import BadAsset, parse_asset
from pandacea.domain.ids import PRODUCT_ID, AssetId, ProductId, Wei
from pandacea.domain.product import LiveOutput, Policy, Rehearsal, Release, Rules
from pandacea.domain.table import DeclaredAsset
from pandacea.errors import BadConfig
from pandacea_sdk.protocol.json_types import JsonObject

PRODUCTS_FILE: Final = "products.yaml"
WEI_PER_UNIT: Final = {"wei": 1, "gwei": 10**9, "ether": 10**18, "eth": 10**18}
PRODUCT_KEYS: Final = ("id", "name", "description", "data_type", "keywords", "price", "assets", "rules")
_ENUMS: Final[dict[str, type[StrEnum]]] = {
    "policy": Policy,
    "release": Release,
    "live_output": LiveOutput,
    "rehearsal": Rehearsal,
}


@dataclass(frozen=True, slots=True)
class DeclaredProduct:
    """A product as its Earner declares it."""

    product_id: ProductId
    name: str
    description: str
    data_type: str
    keywords: tuple[str, ...]
    price: Wei
    assets: dict[AssetId, DeclaredAsset]
    rules: Rules

    @property
    def files(self) -> dict[AssetId, Path]:
        """The source file of each asset."""
        return {asset_id: asset.source for asset_id, asset in self.assets.items()}


def read_products(data_dir: Path, name: str = PRODUCTS_FILE) -> list[DeclaredProduct]:
    """Read the products of a data folder.

    Raises:
        BadConfig: the file, a key, a value or an asset's file is missing or bad; the sentence names it.
    """
    if not data_dir.is_dir():
        raise BadConfig(f"privacy.data_dir {data_dir} is not a folder here; mend the path, mount what belongs there, or make it.")
    path = data_dir / name
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadConfig(f"{path} cannot be read: {' '.join(str(error).split())}.") from error
    given = tree.get("products") if isinstance(tree, dict) else None
    if not isinstance(given, list):
        raise BadConfig(f"{path} must hold `products:` with a list of products.")
    products = [_product(path, data_dir, entry, f"products[{number}]") for number, entry in enumerate(given)]
    ids = [product.product_id for product in products]
    for product_id in ids:
        if ids.count(product_id) > 1:
            raise BadConfig(f"{path}: two products have the id {product_id!r}.")
    return products


def parse_product(entry: JsonObject, data_dir: Path) -> DeclaredProduct:
    """Read one product, an entry as in products.yaml. Raises BadConfig."""
    return _product(Path("products add"), data_dir, entry, "the new product")


def _product(path: Path, data_dir: Path, entry: object, where: str) -> DeclaredProduct:
    if not isinstance(entry, dict):
        raise BadConfig(f"{path}: {where} must be a mapping with the keys {', '.join(PRODUCT_KEYS)}.")
    for key in entry:
        if key not in PRODUCT_KEYS:
            raise BadConfig(f"{path}: {where}.{key} is not a key; allowed here: {', '.join(PRODUCT_KEYS)}.")
    product_id = entry.get("id")
    if not isinstance(product_id, str) or not PRODUCT_ID.fullmatch(product_id):
        raise BadConfig(f"{path}: {where}.id is {product_id!r}; it must match {PRODUCT_ID.pattern}.")
    where = f"product {product_id}"
    assets = entry.get("assets")
    if isinstance(assets, list):
        assets = dict.fromkeys(assets)
    if not isinstance(assets, dict) or not assets:
        raise BadConfig(f"{path}: {where}: `assets` must list at least one asset id.")
    return DeclaredProduct(
        product_id=ProductId(product_id),
        name=_text(path, where, entry, "name", product_id),
        description=_text(path, where, entry, "description", ""),
        data_type=_text(path, where, entry, "data_type", "tabular"),
        keywords=tuple(str(word) for word in entry.get("keywords") or ()),
        price=parse_price_field(path, where, entry.get("price", 0)),
        assets={AssetId(str(asset)): _asset(path, data_dir, where, str(asset), given) for asset, given in assets.items()},
        rules=_rules(path, where, entry.get("rules") or {}),
    )


def _text(path: Path, where: str, entry: JsonObject, key: str, default: str) -> str:
    value = entry.get(key, default)
    if not isinstance(value, str):
        raise BadConfig(f"{path}: {where}.{key} is {value!r}; it must be text.")
    return value


def parse_price_field(path: Path, where: str, value: object) -> Wei:
    """Read a price of products.yaml. Raises BadConfig."""
    try:
        return parse_price(value)
    except BadConfig as error:
        raise BadConfig(f"{path}: {where}.price is {value!r}; {error.detail}") from error


def parse_price(value: object) -> Wei:
    """Read a price: a whole number of wei, or "0.02 ether". Raises BadConfig."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", str(value))
    try:
        amount = Decimal(match[1]) * WEI_PER_UNIT[match[2] or "wei"] if match else None
    except (KeyError, InvalidOperation):
        amount = None
    if amount is None or amount != int(amount):
        raise BadConfig("write a whole number of wei, or for example '0.02 ether'.")
    return Wei(int(amount))


def _rules(path: Path, where: str, given: object) -> Rules:
    names = [field.name for field in fields(Rules)]
    if not isinstance(given, dict):
        raise BadConfig(f"{path}: {where}.rules must be a mapping with the keys {', '.join(names)}.")
    values: JsonObject = {}
    for key, value in given.items():
        kind = _ENUMS.get(key)
        if key not in names:
            raise BadConfig(f"{path}: {where}.rules.{key} is not a rule; allowed: {', '.join(names)}.")
        if kind is None and not isinstance(value, bool):
            raise BadConfig(f"{path}: {where}.rules.{key} is {value!r}; allowed: true, false.")
        try:
            values[key] = kind(value) if kind else value
        except ValueError:
            allowed = ", ".join(kind) if kind else ""
            raise BadConfig(f"{path}: {where}.rules.{key} is {value!r}; allowed: {allowed}.") from None
    return Rules(**values)


def _asset(path: Path, data_dir: Path, where: str, asset_id: str, given: object) -> DeclaredAsset:
    try:
        return parse_asset(asset_id, given, data_dir)
    except BadAsset as error:
        raise BadConfig(f"{path}: {where}: {error.detail}") from error
