"""Who the node is, and whether it may be believed now."""

from __future__ import annotations

from aiohttp import web

from pandacea.api.node import NODE


async def well_known(request: web.Request) -> web.Response:
    """GET /.well-known/pandacea: chain, contract, Earner, authorities, version; signed."""
    return web.json_response(request.app[NODE].well_known)


async def healthz(_request: web.Request) -> web.Response:
    """GET /healthz: the event loop answers."""
    return web.json_response({"live": True})


async def readyz(request: web.Request) -> web.Response:
    """GET /readyz: 200 when leases may be believed and a box can be made, else 503 with each part's own word."""
    readiness = request.app[NODE].readiness()
    return web.json_response({"ready": readiness.ready, **readiness.parts}, status=200 if readiness.ready else 503)


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json."""
    return web.Response(body=request.app[NODE].openapi, content_type="application/json")
