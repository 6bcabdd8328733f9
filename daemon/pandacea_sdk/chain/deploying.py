"""Deploy the contract of this version."""

from __future__ import annotations

from eth_account.signers.local import LocalAccount

from pandacea_sdk.chain.caps import DEPLOY_CAPS, Caps
from pandacea_sdk.chain.errors import WrongDeployment
from pandacea_sdk.chain.lease_chain import MINED_WITHIN_SECONDS, raise_usage_errors
from pandacea_sdk.chain.rpc import JsonRpcClient
from pandacea_sdk.chain.sender import TransactionSender
from pandacea_sdk.credentials import account_from_key
from pandacea_sdk.protocol.contract import lease_agreement
from pandacea_sdk.protocol.deployment import Deployment
from pandacea_sdk.protocol.hashing import hex32, keccak256


async def deploy(
    rpc_url: str,
    key: str | LocalAccount,
    *,
    arbiter: str,
    owner: str | None = None,
    caps: Caps = DEPLOY_CAPS,
    mined_within: float = MINED_WITHIN_SECONDS,
    allow_http: bool = False,
) -> Deployment:
    """Deploy the LeaseAgreement of this version and check the code that arrived.

    `arbiter` decides the first leases' disputes; `owner` (default: the deploying account) may pause and appoint arbiters;
    `caps`: the most that it may cost (default: 0.1 of the native coin, 8,000,000 gas).

    Raises:
        UsageError: an address or the key is malformed; nothing was sent.
        ChainError: it was not deployed, or other code arrived.
    """
    account = account_from_key(key)
    abi = lease_agreement()
    code = raise_usage_errors(abi.encode_creation, owner or account.address, arbiter)
    async with JsonRpcClient(rpc_url, allow_http=allow_http) as rpc:
        chain_id = await rpc.call_for_quantity("eth_chainId")
        sender = TransactionSender(rpc, account, abi, chain_id, timeout=mined_within, caps=caps)
        receipt = await sender.send("deployment", None, code)
        address = str(receipt.contract_address)
        arrived = await rpc.call_for_bytes("eth_getCode", address, "latest")
    code_hash = hex32(keccak256(arrived))
    if code_hash != abi.runtime_code_hash:
        raise WrongDeployment(f"the code at {address} has the hash {code_hash}, expected {abi.runtime_code_hash}: do not use it")
    return Deployment(chain_id, address, receipt.block_number, code_hash)
