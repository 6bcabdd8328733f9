"""Every table of the node: importing this module fills `SQLModel.metadata`."""

from pandacea.store.jobs import JobArtifact, JobRow
from pandacea.store.nonces import RequestNonce
from pandacea.store.outbox import Outbox
from pandacea.store.products import AssetVersion, ProductRow, ProductVersion

__all__ = ["AssetVersion", "JobArtifact", "JobRow", "Outbox", "ProductRow", "ProductVersion", "RequestNonce"]
