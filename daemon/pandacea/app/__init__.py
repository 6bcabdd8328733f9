"""The composition root: opens adapters, starts loops, stops in reverse. Only this room knows two adapters at once."""

from pandacea.app.operator import examine
from pandacea.app.serve import serve

__all__ = ["examine", "serve"]
