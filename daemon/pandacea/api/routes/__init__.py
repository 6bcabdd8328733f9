"""The routes, one file a resource. HANDLERS is the table; each handler says with `@operation` where it is served."""

from typing import Final

from aiohttp import web

from pandacea.api.openapi.operation import Operation, find_operation
from pandacea.api.routes import about, catalogue, code, events, execute, leases, results, uploads

HANDLERS: Final = (
    execute.post_execute,
    results.get_status,
    results.delete_computation,
    results.get_artifact,
    events.get_events,
    uploads.get_upload,
    uploads.put_upload,
    code.post_code,
    code.get_code_state,
    catalogue.list_products,
    catalogue.get_product,
    catalogue.get_croissant,
    catalogue.get_mock_csv,
    catalogue.get_products_page,
    catalogue.get_product_page,
    leases.get_lease,
    about.get_well_known,
    about.get_openapi,
    about.get_docs,
    about.get_healthz,
    about.get_readyz,
)
"""In the order in which the OpenAPI document lists them."""


def add_routes(app: web.Application) -> None:
    """Serve every handler; a GET is served as HEAD, too."""
    app[catalogue.RENDERED] = {}
    for handler in HANDLERS:
        described = operation_of(handler)
        if described.method == "GET":
            app.router.add_get(described.route, handler)
        else:
            app.router.add_route(described.method, described.route, handler)


def operation_of(handler: object) -> Operation:
    """Return the description of one of HANDLERS."""
    described = find_operation(handler)
    assert described is not None, f"{handler} has no @operation"
    return described
