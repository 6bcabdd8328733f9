"""GET /api/v1/products and /products/{id}: what is on offer, public."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from pandacea.api.node import NODE, Node
from pandacea.domain.product import Product
from pandacea.flows.submit import Forbidden

ROUTE = "/api/v1/products"


async def products(request: web.Request) -> web.Response:
    """Every product, in short."""
    node = request.app[NODE]
    return web.json_response({"data": [_short(product) for product in node.catalogue.all()], "nextCursor": ""})


async def product(request: web.Request) -> web.Response:
    """One product: its signed document, its version, the limits and environment its scripts run in."""
    node = request.app[NODE]
    found = node.catalogue.by_id(request.match_info["product_id"])
    if found is None:
        raise Forbidden("product-unknown", "This node offers no product with this id; GET /api/v1/products lists them.")
    return web.json_response(_whole(found, node))


def _short(product: Product) -> dict[str, Any]:
    document = product.document
    return {
        "productId": product.product_id,
        "name": document["name"],
        "dataType": document["data_type"],
        "keywords": document["keywords"],
        "priceWei": document["price_wei"],
        "version": product.version,
    }


def _whole(product: Product, node: Node) -> dict[str, Any]:
    return {
        **_short(product),
        "dataProductId": product.product_hash,
        "description": product.document["description"],
        "rules": product.document["rules"],
        "assets": product.document["assets"],
        "limits": node.submit.limits.as_json(),
        "environment": node.well_known.get("environment"),
        "document": product.document,
        "signature": product.signature,
    }
