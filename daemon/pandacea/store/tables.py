"""Every table of the node: importing this module fills `SQLModel.metadata`."""

from pandacea.store import chain, jobs, leases, nonces, outbox, products

__all__ = ["chain", "jobs", "leases", "nonces", "outbox", "products"]
