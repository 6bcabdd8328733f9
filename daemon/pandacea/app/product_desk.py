"""The operator's words about products: what is on offer, what is public of it, and taking up a changed products.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pandacea.catalogue.products_file import read
from pandacea.catalogue.registry import Catalogue
from pandacea.errors import Refused
from pandacea.store.products import SqlProductBook


class ProductDesk:
    """Answers the desk's `products` verbs. `catalogue`: of the running node; None: nothing can be taken up now."""

    def __init__(self, book: SqlProductBook, data_dir: Path, catalogue: Catalogue | None = None) -> None:
        """Read from the node's database; register through its catalogue."""
        self._book, self._data_dir, self._catalogue = book, data_dir, catalogue

    async def list(self, _asked: Mapping[str, Any]) -> dict[str, Any]:
        """Every product on offer, in short."""
        products = [
            {"product_id": one.product_id, "name": one.document["name"], "price_wei": one.document["price_wei"]}
            | {"assets": [asset["asset_id"] for asset in one.document["assets"]], "version": one.version}
            for one in await self._book.current()
        ]
        return {"products": products}

    async def show(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """All that is public of one product. Raises Refused."""
        for one in await self._book.current():
            if one.product_id == asked["id"]:
                return {"product_id": one.product_id, "version": one.version, "signature": one.signature, "document": one.document}
        raise Refused(f"No product {asked['id']!r} is on offer; `pandacea products list` says which are.")

    async def reload(self, _asked: Mapping[str, Any]) -> dict[str, Any]:
        """Take up products.yaml and changed sources. Raises Refused, BadConfig."""
        if self._catalogue is None:
            raise Refused("No node is running; its next start takes up products.yaml.")
        troubles = await self._catalogue.register(read(self._data_dir), self._data_dir)
        return {
            "products": [product.product_id for product in self._catalogue.all()],
            "troubles": [{"product_id": one.product_id, "detail": one.detail} for one in troubles],
        }
