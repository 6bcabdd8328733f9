"""The composition root: opens adapters, starts loops, stops in reverse. Only this room knows two adapters at once."""

from pandacea.app.acknowledging import acknowledge_lease
from pandacea.app.commands.add_product import AddProductRequest, add_product, remove_product
from pandacea.app.commands.doctor import run_checks
from pandacea.app.commands.leases import list_leases
from pandacea.app.control.server import call_node
from pandacea.app.node import serve
from pandacea.app.render import render_answer

__all__ = [
    "AddProductRequest",
    "acknowledge_lease",
    "add_product",
    "call_node",
    "list_leases",
    "remove_product",
    "render_answer",
    "run_checks",
    "serve",
]
