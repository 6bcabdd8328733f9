"""Every table of the node: importing this module fills `SQLModel.metadata`."""

from pandacea.store.jobs import Job, JobArtifact
from pandacea.store.nonces import RequestNonce
from pandacea.store.outbox import Outbox
from pandacea.store.products import AssetVersion, Product, ProductVersion

__all__ = ["AssetVersion", "Job", "JobArtifact", "Outbox", "Product", "ProductVersion", "RequestNonce"]
