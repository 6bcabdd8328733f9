"""Every table of the node: importing this module fills `SQLModel.metadata`."""

from pandacea.store.audit import AuditLogRow
from pandacea.store.chain import ChainBlockRow, ChainEventRow, SettledRangeRow
from pandacea.store.code import CodeSubmissionRow
from pandacea.store.cross_checks import CrossCheckRow
from pandacea.store.deployments import DeploymentRow
from pandacea.store.generations import GenerationRow
from pandacea.store.jobs import JobArtifactRow, JobRow
from pandacea.store.leases import LeaseProofRow, LeaseRow
from pandacea.store.nonces import RequestNonceRow
from pandacea.store.outbox import OutboxRow
from pandacea.store.plain_keys import PlainKeyRow
from pandacea.store.products import AssetVersionRow, ProductRow, ProductVersionRow
from pandacea.store.sent_transactions import SentTransactionRow
from pandacea.store.uploads import UploadRow
from pandacea.store.writer_lock import HolderRow

__all__ = [
    "AssetVersionRow",
    "AuditLogRow",
    "ChainBlockRow",
    "ChainEventRow",
    "CodeSubmissionRow",
    "CrossCheckRow",
    "DeploymentRow",
    "GenerationRow",
    "HolderRow",
    "JobArtifactRow",
    "JobRow",
    "LeaseProofRow",
    "LeaseRow",
    "OutboxRow",
    "PlainKeyRow",
    "ProductRow",
    "ProductVersionRow",
    "RequestNonceRow",
    "SentTransactionRow",
    "SettledRangeRow",
    "UploadRow",
]
