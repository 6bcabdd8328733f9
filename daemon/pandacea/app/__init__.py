"""The composition root: opens adapters, starts loops, stops in reverse. Only this room knows two adapters at once."""
