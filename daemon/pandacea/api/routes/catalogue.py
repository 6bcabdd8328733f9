"""What is on offer, public: JSON, a page for people, Croissant, and the mock rows. Built once for each version."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from pandacea.api import product_page as page
from pandacea.api.croissant import croissant_document
from pandacea.api.node import NODE, NodeContext
from pandacea.domain.product import Asset, Product
from pandacea.errors import ProblemError

ROUTE: Final = "/api/v1/products"
PRODUCT_ROUTE: Final = ROUTE + "/{product_id}"
CROISSANT_ROUTE: Final = PRODUCT_ROUTE + "/croissant.json"
MOCK_ROUTE: Final = PRODUCT_ROUTE + "/assets/{asset_id}/mock.csv"
PAGES_ROUTE: Final = "/products"
PAGE_ROUTE: Final = PAGES_ROUTE + "/{product_id}"

_BUILT: Final = 256
RENDERED: Final[web.AppKey[dict[tuple[str, ...], bytes]]] = web.AppKey("built", dict)
"""Answers by kind and product versions, so that a stranger's request costs no more than sending bytes."""


async def list_products(request: web.Request) -> web.Response:
    """Every product, in short."""
    node = request.app[NODE]
    offered = node.catalogue.list_products()
    body = _built(
        request,
        ("list", *(one.version for one in offered)),
        lambda: _json({"data": [_short(one) for one in offered], "nextCursor": ""}),
    )
    return _answer(body, "application/json")


async def get_product(request: web.Request) -> web.Response:
    """One product: its signed document, its version, the limits and environment its scripts run in."""
    node, found = _found(request)
    return _answer(_built(request, ("json", found.version), lambda: _json(_whole(found, node))), "application/json")


async def get_products_page(request: web.Request) -> web.Response:
    """Every product, for people."""
    node = request.app[NODE]
    offered = node.catalogue.list_products()
    key = ("pages", *(one.version for one in offered))
    return _html(_built(request, key, lambda: page.render_products_page([one.document for one in offered], node.earner)))


async def get_product_page(request: web.Request) -> web.Response:
    """One product, for people."""
    node, found = _found(request)

    def build() -> bytes:
        return page.render_product_page(
            found.document,
            version=found.version,
            signature=found.signature,
            product_hash=found.product_hash,
            earner=node.earner,
            limits=node.submit.limits.as_json(),
            environment=node.well_known.get("environment"),
        )

    return _html(_built(request, ("page", found.version), build))


async def get_croissant(request: web.Request) -> web.Response:
    """The product's mock files as Croissant JSON-LD."""
    node, found = _found(request)
    base = f"{request.scheme}://{node.well_known['authorities'][0]}{ROUTE}/{found.product_id}"
    body = _built(request, ("croissant", found.version, base), lambda: _json(croissant_document(found.document, base)))
    return _answer(body, "application/ld+json")


async def get_mock_csv(request: web.Request) -> web.StreamResponse:
    """An asset's mock rows as CSV."""
    _, found = _found(request)
    asset: Asset | None = next((one for one in found.assets.values() if one.asset_id == request.match_info["asset_id"]), None)
    if asset is None or asset.mock is None:
        raise ProblemError("product-unknown", f"The product {found.product_id} has no such asset, or none with mock rows.")
    name = f"{asset.asset_id}_mock.csv"
    headers = {"Content-Type": "text/csv; charset=utf-8", "Content-Disposition": f'attachment; filename="{name}"'}
    return web.FileResponse(asset.mock.csv, headers=headers)


def _found(request: web.Request) -> tuple[NodeContext, Product]:
    node = request.app[NODE]
    found = node.catalogue.find_by_id(request.match_info["product_id"])
    if found is None:
        raise ProblemError("product-unknown", "This node offers no product with this id; GET /api/v1/products lists them.")
    return node, found


def _built(request: web.Request, key: tuple[str, ...], build: Callable[[], bytes]) -> bytes:
    built = request.app[RENDERED]
    if key not in built:
        if len(built) >= _BUILT:
            built.clear()
        built[key] = build()
    return built[key]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _answer(body: bytes, kind: str) -> web.Response:
    return web.Response(body=body, content_type=kind)


def _html(body: bytes) -> web.Response:
    return web.Response(
        body=body, content_type="text/html", charset="utf-8", headers={"Content-Security-Policy": page.CONTENT_SECURITY_POLICY}
    )


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


def _whole(product: Product, node: NodeContext) -> dict[str, Any]:
    return {
        **_short(product),
        "dataProductId": product.product_hash,
        "description": product.document["description"],
        "rules": product.document["rules"],
        "assets": [_asset(product, asset) for asset in product.document["assets"]],
        "limits": node.submit.limits.as_json(),
        "environment": node.well_known.get("environment"),
        "document": product.document,
        "signature": product.signature,
    }


def _asset(product: Product, asset: dict[str, Any]) -> dict[str, Any]:
    if "mock" not in asset:
        return asset
    place = MOCK_ROUTE.format(product_id=product.product_id, asset_id=asset["asset_id"])
    return asset | {"mock": asset["mock"] | {"url": place}}
