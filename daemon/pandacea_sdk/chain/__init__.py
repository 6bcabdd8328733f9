"""Create, settle and read leases on the chain, over raw JSON-RPC."""

from pandacea_sdk.chain.caps import Caps
from pandacea_sdk.chain.deploying import deploy
from pandacea_sdk.chain.errors import (
    ChainError,
    ContractReverted,
    FeeAboveCap,
    NotMined,
    RpcRefused,
    RpcUnavailable,
    WrongDeployment,
)
from pandacea_sdk.chain.lease import OnChainLease
from pandacea_sdk.chain.lease_chain import LeaseChain
from pandacea_sdk.chain.sender import MinedTransaction
from pandacea_sdk.errors import UsageError
from pandacea_sdk.protocol.deployment import Deployment
from pandacea_sdk.protocol.ids import LeaseStatus

__all__ = [
    "Caps",
    "ChainError",
    "ContractReverted",
    "Deployment",
    "FeeAboveCap",
    "LeaseChain",
    "LeaseStatus",
    "MinedTransaction",
    "NotMined",
    "OnChainLease",
    "RpcRefused",
    "RpcUnavailable",
    "UsageError",
    "WrongDeployment",
    "deploy",
]
