"""Every table of the node: importing this module fills `SQLModel.metadata`."""

from pandacea.store.chain import ChainBlock, ChainEvent, Deployment, SettledRange
from pandacea.store.code import CodeSubmission
from pandacea.store.hold import Holder
from pandacea.store.jobs import JobArtifact, JobRow
from pandacea.store.leases import LeaseProof, LeaseRow
from pandacea.store.nonces import RequestNonce
from pandacea.store.outbox import Outbox
from pandacea.store.plain_keys import PlainKey
from pandacea.store.products import AssetVersion, ProductRow, ProductVersion
from pandacea.store.sent import SentRow
from pandacea.store.uploads import Upload

__all__ = [
    "AssetVersion",
    "ChainBlock",
    "ChainEvent",
    "CodeSubmission",
    "Deployment",
    "Holder",
    "JobArtifact",
    "JobRow",
    "LeaseProof",
    "LeaseRow",
    "Outbox",
    "PlainKey",
    "ProductRow",
    "ProductVersion",
    "RequestNonce",
    "SentRow",
    "SettledRange",
    "Upload",
]
