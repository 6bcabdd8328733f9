"""The operator's words about products: what is on offer, what is public of it, and taking up a changed products.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pandacea.catalogue.products_file import PRODUCTS_FILE, DeclaredProduct, read_products
from pandacea.catalogue.registry import ProductCatalogue
from pandacea.errors import BadConfig, Refused
from pandacea.store.products import SqlProductStore

_UNSEEN: Final = "Taken up by the next start; `pandacea doctor` reads its files now."


class ProductControl:
    """Answers the desk's `products` verbs. `catalogue`: of the running node; None: nothing can be taken up now."""

    def __init__(self, book: SqlProductStore, data_dir: Path, catalogue: ProductCatalogue | None = None) -> None:
        """Read from the node's database; register through its catalogue."""
        self._book, self._data_dir, self._catalogue = book, data_dir, catalogue

    async def list_products(self, _asked: Mapping[str, Any]) -> dict[str, Any]:
        """Every product on offer, in short; and those that are stated but not on offer, with the reason."""
        products = [
            {"product_id": one.product_id, "name": one.document["name"], "price_wei": one.document["price_wei"]}
            | {"assets": [asset["asset_id"] for asset in one.document["assets"]], "version": one.version}
            for one in await self._book.list_current_versions()
        ]
        return {"products": products, "not_offered": self._not_offered({one["product_id"] for one in products})}

    async def describe_product(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """All that is public of one product. Raises Refused."""
        for one in await self._book.list_current_versions():
            if one.product_id == asked["id"]:
                return {"product_id": one.product_id, "version": one.version, "signature": one.signature, "document": one.document}
        raise Refused(f"No product {asked['id']!r} is on offer; `pandacea products list` says which are.")

    async def reload_products(self, _asked: Mapping[str, Any]) -> dict[str, Any]:
        """Take up products.yaml and changed sources. Raises Refused, BadConfig."""
        if self._catalogue is None:
            raise Refused("No node is running; its next start takes up products.yaml.")
        troubles = await self._catalogue.register(await read_declared_products(self._data_dir, self._book), self._data_dir)
        return {
            "products": [product.product_id for product in self._catalogue.list_products()],
            "troubles": [{"product_id": one.product_id, "detail": one.detail} for one in troubles],
        }

    def _not_offered(self, offered: set[str]) -> Sequence[dict[str, str]]:
        because = {one.product_id: one.detail for one in self._catalogue.rejected} if self._catalogue is not None else {}
        otherwise = _UNSEEN if self._catalogue is None else "Stated since the node read products.yaml: `pandacea products reload`."
        try:
            stated = [product.product_id for product in read_products(self._data_dir)]
        except BadConfig as problem:
            return [{"product_id": "products.yaml", "detail": problem.detail}]
        return [{"product_id": one, "detail": because.get(one, otherwise)} for one in stated if one not in offered]


async def read_declared_products(data_dir: Path, book: SqlProductStore) -> list[DeclaredProduct]:
    """The products of products.yaml. A file that is gone is not an empty one.

    Raises:
        BadConfig: it cannot be used, or it is gone while products are on offer: a folder that is not mounted must not end them.
    """
    if data_dir.is_dir() and not (data_dir / PRODUCTS_FILE).exists() and (offered := await book.list_offered()):
        raise BadConfig(
            f"{data_dir / PRODUCTS_FILE} is gone, and {', '.join(sorted(offered))} is on offer. Put it back, or write a file with "
            "`products: []` to offer nothing."
        )
    return read_products(data_dir)
