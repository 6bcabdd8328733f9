"""Public routes of products: JSON, pages for people, Croissant, and mock rows. Each answer is built once for each version."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from pandacea.api import product_page as page
from pandacea.api.croissant import croissant_document
from pandacea.api.node import NODE, NodeContext
from pandacea.api.openapi.operation import HTML, Auth, operation, path_parameter
from pandacea.domain.product import Asset, Product
from pandacea.errors import ProblemError
from pandacea_sdk.protocol import responses
from pandacea_sdk.protocol.json_types import JsonObject

PRODUCTS: Final = "/api/v1/products"
PRODUCT: Final = PRODUCTS + "/{product_id}"
MOCK: Final = PRODUCT + "/assets/{asset_id}/mock.csv"

_MAX_RENDERED: Final = 256
"""Answers kept; at the limit all are dropped."""
RENDERED: Final[web.AppKey[dict[tuple[str, ...], bytes]]] = web.AppKey("built", dict)
"""Answers by kind and product versions, so that a public request costs no more than sending bytes."""


@operation("GET", PRODUCTS, "What is on offer", Auth.PUBLIC, {200: responses.ProductList})
async def list_products(request: web.Request) -> web.Response:
    """List the products on offer."""
    node = request.app[NODE]
    offered = node.catalogue.list_products()
    body = _render_once(
        request,
        ("list", *(one.version for one in offered)),
        lambda: _json({"data": [_short(one) for one in offered], "nextCursor": ""}),
    )
    return _answer(body, "application/json")


@operation(
    "GET",
    PRODUCT,
    "One product: schema, mock rows, price, rules, limits, environment, signed version",
    Auth.PUBLIC,
    {200: responses.ProductAnswer},
    ("product-unknown",),
    parameters=(path_parameter("product_id"),),
)
async def get_product(request: web.Request) -> web.Response:
    """Answer with one product: its signed document, its version, the limits and environment of its scripts."""
    node, found = _find_product(request)
    return _answer(_render_once(request, ("json", found.version), lambda: _json(_whole(found, node))), "application/json")


@operation("GET", "/products", "What is on offer, for people", Auth.PUBLIC, {200: HTML})
async def get_products_page(request: web.Request) -> web.Response:
    """Answer with the list of products as a page."""
    node = request.app[NODE]
    offered = node.catalogue.list_products()
    key = ("pages", *(one.version for one in offered))
    return _html(_render_once(request, key, lambda: page.render_products_page([one.document for one in offered], node.earner)))


@operation(
    "GET",
    "/products/{product_id}",
    "One product, for people",
    Auth.PUBLIC,
    {200: HTML},
    ("product-unknown",),
    parameters=(path_parameter("product_id"),),
)
async def get_product_page(request: web.Request) -> web.Response:
    """Answer with one product as a page."""
    node, found = _find_product(request)

    def build() -> bytes:
        return page.render_product_page(
            found.document,
            version=found.version,
            signature=found.signature,
            product_hash=found.product_hash,
            earner=node.earner,
            limits=node.limits.as_json(),
            environment=node.well_known.get("environment"),
        )

    return _html(_render_once(request, ("page", found.version), build))


@operation(
    "GET",
    PRODUCT + "/croissant.json",
    "The product's mock files as Croissant (JSON-LD)",
    Auth.PUBLIC,
    {200: "application/ld+json"},
    ("product-unknown",),
    parameters=(path_parameter("product_id"),),
)
async def get_croissant(request: web.Request) -> web.Response:
    """Answer with the product's mock files as Croissant JSON-LD."""
    node, found = _find_product(request)
    base = f"{request.scheme}://{node.well_known['authorities'][0]}{PRODUCTS}/{found.product_id}"
    body = _render_once(request, ("croissant", found.version, base), lambda: _json(croissant_document(found.document, base)))
    return _answer(body, "application/ld+json")


@operation(
    "GET",
    MOCK,
    "An asset's mock rows",
    Auth.PUBLIC,
    {200: "text/csv"},
    ("product-unknown",),
    parameters=(path_parameter("product_id"), path_parameter("asset_id")),
)
async def get_mock_csv(request: web.Request) -> web.StreamResponse:
    """Answer with an asset's mock rows as CSV."""
    _, found = _find_product(request)
    asset: Asset | None = next((one for one in found.assets.values() if one.asset_id == request.match_info["asset_id"]), None)
    if asset is None or asset.mock is None:
        raise ProblemError("product-unknown", f"The product {found.product_id} has no such asset, or none with mock rows.")
    name = f"{asset.asset_id}_mock.csv"
    headers = {"Content-Type": "text/csv; charset=utf-8", "Content-Disposition": f'attachment; filename="{name}"'}
    return web.FileResponse(asset.mock.csv, headers=headers)


def _find_product(request: web.Request) -> tuple[NodeContext, Product]:
    node = request.app[NODE]
    found = node.catalogue.find_by_id(request.match_info["product_id"])
    if found is None:
        raise ProblemError("product-unknown", "This node offers no product with this id; GET /api/v1/products lists them.")
    return node, found


def _render_once(request: web.Request, key: tuple[str, ...], build: Callable[[], bytes]) -> bytes:
    built = request.app[RENDERED]
    if key not in built:
        if len(built) >= _MAX_RENDERED:
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


def _short(product: Product) -> JsonObject:
    document = product.document
    return {
        "productId": product.product_id,
        "name": document["name"],
        "dataType": document["data_type"],
        "keywords": document["keywords"],
        "priceWei": document["price_wei"],
        "version": product.version,
    }


def _whole(product: Product, node: NodeContext) -> JsonObject:
    return {
        **_short(product),
        "dataProductId": product.product_hash,
        "description": product.document["description"],
        "rules": product.document["rules"],
        "assets": [_asset(product, asset) for asset in product.document["assets"]],
        "limits": node.limits.as_json(),
        "environment": node.well_known.get("environment"),
        "document": product.document,
        "signature": product.signature,
    }


def _asset(product: Product, asset: JsonObject) -> JsonObject:
    if "mock" not in asset:
        return asset
    place = MOCK.format(product_id=product.product_id, asset_id=asset["asset_id"])
    return asset | {"mock": asset["mock"] | {"url": place}}
