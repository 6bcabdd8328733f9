"""The composition root: opens adapters, starts loops, stops in reverse. Only this room knows two adapters at once."""

from pandacea.app.acknowledging import acknowledge_lease
from pandacea.app.adding import Wanted, add_product, remove_product
from pandacea.app.desk import ask
from pandacea.app.leases import lease_rows
from pandacea.app.operator import examine
from pandacea.app.serve import serve
from pandacea.app.showing import shown

__all__ = ["Wanted", "acknowledge_lease", "add_product", "ask", "examine", "lease_rows", "remove_product", "serve", "shown"]
