"""One file per resource; `add_routes` is the table."""

from aiohttp import web

from pandacea.api.routes import about, catalogue, code, events, execute, leases, results, uploads


def add_routes(app: web.Application) -> None:
    """Everything the node answers."""
    app.router.add_post(execute.ROUTE, execute.post_execute)
    app.router.add_get(results.ROUTE, results.get_status)
    app.router.add_delete(results.ROUTE, results.delete_computation)
    app.router.add_get(results.ARTIFACT_ROUTE, results.get_artifact)
    app.router.add_get(events.ROUTE, events.get_events)
    app.router.add_put(uploads.ROUTE, uploads.put_upload)
    app.router.add_post(code.ROUTE, code.post_code)
    app.router.add_get(code.STATE_ROUTE, code.get_code_state)
    app.router.add_get(catalogue.ROUTE, catalogue.list_products)
    app.router.add_get(catalogue.PRODUCT_ROUTE, catalogue.get_product)
    app.router.add_get(catalogue.CROISSANT_ROUTE, catalogue.get_croissant)
    app.router.add_get(catalogue.MOCK_ROUTE, catalogue.get_mock_csv)
    app.router.add_get(catalogue.PAGES_ROUTE, catalogue.get_products_page)
    app.router.add_get(catalogue.PAGE_ROUTE, catalogue.get_product_page)
    app[catalogue.RENDERED] = {}
    app.router.add_get(leases.ROUTE, leases.get_lease)
    app.router.add_get("/.well-known/pandacea", about.get_well_known)
    app.router.add_get("/healthz", about.get_healthz)
    app.router.add_get("/readyz", about.get_readyz)
    app.router.add_get("/openapi.json", about.get_openapi)
    app.router.add_get("/docs", about.get_docs)
