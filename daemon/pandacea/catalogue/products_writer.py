"""Add products to products.yaml and remove them; the rest of the file stays as the Earner wrote it where its form allows."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from pandacea.catalogue.products_file import PRODUCTS_FILE, DeclaredProduct, read_products
from pandacea.errors import BadConfig
from pandacea.files.durable import fsync_path, rename_durably
from pandacea_sdk.protocol.json_types import JsonObject

_HEAD: Final = "# What this node offers. Every key: docs/products.md\nproducts:\n"


def check_id_is_free(data_dir: Path, product_id: str) -> None:
    """Raise BadConfig when products.yaml cannot take a product of this id."""
    if any(product.product_id == product_id for product in read_products(data_dir)):
        raise BadConfig(f"{data_dir / PRODUCTS_FILE} has a product {product_id!r} already: edit it there, or remove it first.")


def add_entry(data_dir: Path, entry: JsonObject) -> DeclaredProduct:
    """Append a product and return it as it is read back; the file is replaced at once or not at all.

    Raises:
        BadConfig: the id is taken, the file is not what it should be, or the entry cannot be used.
    """
    path = data_dir / PRODUCTS_FILE
    check_id_is_free(data_dir, str(entry["id"]))
    old = path.read_text(encoding="utf-8") if path.exists() else _HEAD
    added = yaml.safe_dump([entry], sort_keys=False, allow_unicode=True, width=120)
    text = old.rstrip("\n") + "\n\n" + "".join(f"  {line}\n" if line else "\n" for line in added.splitlines())
    if not _read_entries(old) or _read_entries(text) != [*_read_entries(old), entry]:
        # The file is written in another style (JSON, an empty list): its content is kept, its form is not.
        text = _HEAD + yaml.safe_dump([*_read_entries(old), entry], sort_keys=False, allow_unicode=True, width=120)
    return _replace(path, text, data_dir)[entry["id"]]


def remove_entry(data_dir: Path, product_id: str) -> None:
    """Remove a product from products.yaml. Raises BadConfig when the file does not have it."""
    path = data_dir / PRODUCTS_FILE
    if all(product.product_id != product_id for product in read_products(data_dir)):
        raise BadConfig(f"{path} has no product {product_id!r}.")
    left = [entry for entry in _read_entries(path.read_text(encoding="utf-8")) if entry["id"] != product_id]
    body = yaml.safe_dump(left, sort_keys=False, allow_unicode=True, width=120) if left else ""
    _replace(path, _HEAD + body if left else _HEAD.rstrip("\n") + " []\n", data_dir)


def _read_entries(text: str) -> list[JsonObject]:
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError:
        return []
    found = tree.get("products") if isinstance(tree, dict) else None
    return found if isinstance(found, list) else []


def _replace(path: Path, text: str, data_dir: Path) -> dict[str, DeclaredProduct]:
    """Write the new file beside the old one, check that it can be read, and put it in its place."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text, encoding="utf-8")
    try:
        products = read_products(data_dir, fresh.name)
    except BadConfig:
        fresh.unlink()
        raise
    fsync_path(fresh)
    rename_durably(fresh, path)
    return {product.product_id: product for product in products}
