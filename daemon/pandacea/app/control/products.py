"""Control verbs about products: list those on offer, show all that is public of one, reload products.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pandacea.catalogue.products_file import PRODUCTS_FILE, DeclaredProduct, read_products
from pandacea.catalogue.registry import ProductCatalogue
from pandacea.errors import BadConfig, Refused
from pandacea.store.products import SqlProductStore
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject

_NOT_READ: Final = "Taken up by the next start; `pandacea doctor` reads its files now."
_NEWER: Final = "Stated since the node read products.yaml: `pandacea products reload`."


class ProductControl:
    """Carries out the control socket's `products` verbs."""

    def __init__(self, store: SqlProductStore, data_dir: Path, catalogue: ProductCatalogue | None = None) -> None:
        """`catalogue`: the running node's; None where no node runs, and nothing can be reloaded."""
        self._store, self._data_dir, self._catalogue = store, data_dir, catalogue

    async def list_products(self, _arguments: JsonMapping) -> JsonObject:
        """Return the products on offer, in short, and those declared but not on offer, with the reason."""
        products = [
            {"product_id": one.product_id, "name": one.document["name"], "price_wei": one.document["price_wei"]}
            | {"assets": [asset["asset_id"] for asset in one.document["assets"]], "version": one.version}
            for one in await self._store.list_current_versions()
        ]
        return {"products": products, "not_offered": self._list_not_offered({one["product_id"] for one in products})}

    async def describe_product(self, arguments: JsonMapping) -> JsonObject:
        """Return all that is public of one product.

        Raises:
            Refused: it is not on offer.
        """
        for one in await self._store.list_current_versions():
            if one.product_id == arguments["id"]:
                return {"product_id": one.product_id, "version": one.version, "signature": one.signature, "document": one.document}
        raise Refused(f"No product {arguments['id']!r} is on offer; `pandacea products list` says which are.")

    async def reload_products(self, _arguments: JsonMapping) -> JsonObject:
        """Register what products.yaml and its files say now.

        Raises:
            Refused: no node is running.
            BadConfig: products.yaml cannot be used.
        """
        if self._catalogue is None:
            raise Refused("No node is running; its next start takes up products.yaml.")
        rejected = await self._catalogue.register(await read_declared_products(self._data_dir, self._store), self._data_dir)
        return {
            "products": [product.product_id for product in self._catalogue.list_products()],
            "troubles": [{"product_id": one.product_id, "detail": one.detail} for one in rejected],
        }

    def _list_not_offered(self, offered: set[str]) -> Sequence[dict[str, str]]:
        reasons = {one.product_id: one.detail for one in self._catalogue.rejected} if self._catalogue is not None else {}
        otherwise = _NOT_READ if self._catalogue is None else _NEWER
        try:
            declared = [product.product_id for product in read_products(self._data_dir)]
        except BadConfig as problem:
            return [{"product_id": "products.yaml", "detail": problem.detail}]
        return [{"product_id": one, "detail": reasons.get(one, otherwise)} for one in declared if one not in offered]


async def read_declared_products(data_dir: Path, store: SqlProductStore) -> list[DeclaredProduct]:
    """Read the products of products.yaml. A file that is gone does not count as an empty one.

    Raises:
        BadConfig: it cannot be used, or it is gone while products are on offer: a folder that is not mounted must not withdraw them.
    """
    if data_dir.is_dir() and not (data_dir / PRODUCTS_FILE).exists() and (offered := await store.list_offered()):
        raise BadConfig(
            f"{data_dir / PRODUCTS_FILE} is gone, and {', '.join(sorted(offered))} is on offer. Put it back, or write a file with "
            "`products: []` to offer nothing."
        )
    return read_products(data_dir)
