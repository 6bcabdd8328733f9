"""One file per resource; `add_routes` is the table."""

from aiohttp import web

from pandacea.api.routes import about, catalogue, code, events, execute, leases, results, uploads


def add_routes(app: web.Application) -> None:
    """Everything the node answers."""
    app.router.add_post(execute.ROUTE, execute.execute)
    app.router.add_get(results.ROUTE, results.status)
    app.router.add_delete(results.ROUTE, results.remove)
    app.router.add_get(results.ARTIFACT_ROUTE, results.artifact)
    app.router.add_get(events.ROUTE, events.events)
    app.router.add_put(uploads.ROUTE, uploads.put)
    app.router.add_post(code.ROUTE, code.submit)
    app.router.add_get(code.STATE_ROUTE, code.state)
    app.router.add_get(catalogue.ROUTE, catalogue.products)
    app.router.add_get(catalogue.PRODUCT_ROUTE, catalogue.product)
    app.router.add_get(catalogue.CROISSANT_ROUTE, catalogue.croissant_of)
    app.router.add_get(catalogue.MOCK_ROUTE, catalogue.mock)
    app.router.add_get(catalogue.PAGES_ROUTE, catalogue.pages)
    app.router.add_get(catalogue.PAGE_ROUTE, catalogue.product_page)
    app[catalogue.BUILT] = {}
    app.router.add_get(leases.ROUTE, leases.lease)
    app.router.add_get("/.well-known/pandacea", about.well_known)
    app.router.add_get("/healthz", about.healthz)
    app.router.add_get("/readyz", about.readyz)
    app.router.add_get("/openapi.json", about.openapi)
    app.router.add_get("/docs", about.docs)
