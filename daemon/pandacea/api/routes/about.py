"""Routes about the node: who it is, whether it is ready, and the description of the API."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from pandacea.api.node import NODE
from pandacea.api.openapi.document import build_document, encode_document
from pandacea.api.openapi.operation import HTML, JSON, Auth, operation
from pandacea.api.openapi.page import PAGE_POLICY, render_page
from pandacea_sdk.protocol import responses


@operation("GET", "/.well-known/pandacea", "Who this node is; signed", Auth.PUBLIC, {200: responses.WellKnown})
async def get_well_known(request: web.Request) -> web.Response:
    """Answer with chain, contract, Earner, authorities and version, signed."""
    return web.json_response(request.app[NODE].well_known)


@operation("GET", "/healthz", "The event loop answers", Auth.PUBLIC, {200: responses.Live})
async def get_healthz(_request: web.Request) -> web.Response:
    """Answer while the event loop turns."""
    return web.json_response({"live": True})


@operation(
    "GET",
    "/readyz",
    "Whether leases may be believed and a box can be made",
    Auth.PUBLIC,
    {200: responses.Ready, 503: responses.Ready},
)
async def get_readyz(request: web.Request) -> web.Response:
    """Answer 200 when a computation sent now would run, else 503; for each part `ok` or the reason."""
    readiness = request.app[NODE].readiness()
    return web.json_response({"ready": readiness.ready, **readiness.parts}, status=200 if readiness.ready else 503)


OPENAPI: Final = web.AppKey("description", tuple)
"""The description of the API, made once: OpenAPI JSON, and a page for people."""


def publish_openapi(app: web.Application, version: str) -> None:
    """Build the description of an application's routes. Call it when all of them are added.

    Raises:
        LookupError: a route has no description; a defect, found at the start.
    """
    document = build_document(app, version)
    app[OPENAPI] = (encode_document(document), render_page(document))


@operation("GET", "/openapi.json", "This document", Auth.PUBLIC, {200: JSON})
async def get_openapi(request: web.Request) -> web.Response:
    """Answer with the OpenAPI document."""
    return web.Response(body=request.app[OPENAPI][0], content_type="application/json")


@operation("GET", "/docs", "This document for people", Auth.PUBLIC, {200: HTML})
async def get_docs(request: web.Request) -> web.Response:
    """Answer with the document as a page that needs no network and runs no script."""
    headers = {"Content-Security-Policy": PAGE_POLICY}
    return web.Response(body=request.app[OPENAPI][1], content_type="text/html", charset="utf-8", headers=headers)
