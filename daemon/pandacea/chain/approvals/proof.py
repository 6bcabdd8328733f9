"""Proves approvals: what no RPC endpoint can invent.

Either by the approving transaction (`signed`):

1. fetch it, recompute its hash, recover its signer;
2. it must be of this chain, sent to this contract, and call approveLease with this id, or bring it a key's signature over this id;
3. the signer must be the Earner, this node's own key, or the Earner's operator at that block, by an appointment proved in the same way;
4. the lease's id must be the hash of the terms that the node was shown.

Or, where that cannot be had (`agreed`), endpoints of two operators must show the same blocks, receipt and history of the lease.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from pandacea.chain.approvals.signed_transactions import RecoveredTransaction, UnprovableError, fetch_signed_transaction
from pandacea.chain.contract_versions import (
    APPROVE_LEASE_SELECTOR,
    NONCE_OF_SELECTOR,
    OLD_STATE_FAULTS,
    ContractVersion,
    abi_word,
    fetch_arbiter,
    fetch_v0_lease,
)
from pandacea.chain.events import address_topic, event_topic, function_selector
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import RpcFault
from pandacea.chain.rpc_messages import RpcLog, TransactionReceipt
from pandacea.domain.approval_proof import ProofStatus, digest_lease_terms
from pandacea.domain.ids import Address, BlockNumber, Hash32, LeaseId
from pandacea.domain.lease import Lease
from pandacea.domain.lease_record import LeaseRecord
from pandacea.flows.following.chain_store import StoredProof
from pandacea_sdk.protocol.approval import parse_approval_call
from pandacea_sdk.protocol.contract import derive_lease_id

OPERATOR_CHANGED_TOPIC: Final = event_topic("OperatorChanged(address,address)")
LEASE_APPROVED_TOPIC: Final = event_topic("LeaseApproved(bytes32)")
SET_OPERATOR_SELECTOR: Final = function_selector("setOperator(address)")

NEAR_NONCES: Final = 256
FAR_NONCES: Final = 4_096
"""Nonces of the Spender that are tried: below the one at the creation's block, then below the newest."""


@dataclass(slots=True)
class ApprovalProver:
    """Proves the approvals of one contract's leases."""

    contract: Address
    chain_id: int
    contract_version: ContractVersion
    earner: Address
    approvers: frozenset[Address]
    deploy_block: int

    async def prove_approval(self, record: LeaseRecord, endpoint: Endpoint, independent: Endpoint | None) -> StoredProof:
        """Look for a proof of a lease's approval; `independent`: an endpoint that another operator runs.

        Raises:
            RpcFault: an endpoint failed; nothing was decided.
        """
        lease = record.lease
        terms = digest_lease_terms(lease)
        if record.approved_tx is None:
            return StoredProof(ProofStatus.UNPROVEN, terms, None, "no approving transaction is known")
        try:
            signer = await self._recover_approver(record, record.approved_tx, endpoint, independent)
        except UnprovableError as error:
            reason = str(error)
        else:
            return StoredProof(ProofStatus.SIGNED, terms, record.approved_tx, signer)
        if independent is not None and await self._agrees(lease, record.approved_tx, endpoint, independent):
            return StoredProof(ProofStatus.AGREED, terms, record.approved_tx, f"{endpoint.name} and {independent.name}")
        return StoredProof(ProofStatus.UNPROVEN, terms, record.approved_tx, reason)

    # -- the Earner's signature

    async def _recover_approver(
        self, record: LeaseRecord, tx_hash: Hash32, endpoint: Endpoint, independent: Endpoint | None
    ) -> Address:
        """Prove an approval by its transaction; return the signer.

        Raises:
            UnprovableError: the transaction is not a proof; the message says why.
            RpcFault: an endpoint failed; nothing was decided.
        """
        lease = record.lease
        if self.contract_version is ContractVersion.V0:
            raise UnprovableError("ids of a v0 contract do not bind the terms")
        signer = self._find_approver(await self._recover(endpoint, tx_hash), lease.key.lease_id)
        assert lease.approved_block is not None
        if not await self._may_approve(signer, lease.approved_block, endpoint, independent):
            raise UnprovableError(f"it was signed by {signer}, who is neither the Earner nor was the operator at that block")
        if not await self._binds(lease, endpoint):
            raise UnprovableError("the id is not the hash of the terms that were shown")
        return signer

    def _find_approver(self, signed: RecoveredTransaction, lease_id: LeaseId) -> Address:
        """Return whose key approved the lease: the sender's, or the one whose signature the sender brought.

        Raises:
            UnprovableError: the transaction does neither.
        """
        if signed.data.hex() == APPROVE_LEASE_SELECTOR[2:] + abi_word(lease_id):
            return signed.signer
        approval = parse_approval_call(signed.data, self.chain_id, self.contract)
        if approval is None or approval.lease_id != lease_id:
            raise UnprovableError("the transaction does not approve this id")
        signer = approval.signer
        if signer is None:
            raise UnprovableError("the approval's signature is not one key's: it may be a contract wallet's")
        return Address(signer)

    async def _recover(self, endpoint: Endpoint, tx_hash: Hash32) -> RecoveredTransaction:
        try:
            signed = await fetch_signed_transaction(endpoint, tx_hash)
        except UnprovableError as error:
            raise UnprovableError(f"the approving transaction cannot be checked: {error}") from error
        if signed.hash != tx_hash:
            raise UnprovableError("the approving transaction does not have the hash it is shown under")
        if signed.chain_id != self.chain_id:
            raise UnprovableError(f"it was signed for chain {signed.chain_id}")
        if signed.to != self.contract:
            raise UnprovableError("it was sent to another contract (a wallet contract or a relay)")
        return signed

    async def _may_approve(self, signer: Address, at: BlockNumber, endpoint: Endpoint, independent: Endpoint | None) -> bool:
        """Whether the signer is the Earner, this node's own key, or was the Earner's operator at a block.

        The operator must be appointed by the Earner's signature and not replaced up to that block as any endpoint shows it, so that a
        stolen key that was revoked approves nothing more. An appointment is a grant and needs a proof; its end is a denial and needs none.
        """
        if signer == self.earner or signer in self.approvers:
            return True
        for asked in (endpoint, independent):
            if asked is not None and not await self._was_operator(signer, at, asked):
                return False
        return True

    async def _was_operator(self, signer: Address, at: BlockNumber, endpoint: Endpoint) -> bool:
        changes = await self._operator_changes(endpoint, at)
        # The last change up to the block counts, wherever in that block the approval stands.
        if not changes or changes[-1].topics[2] != address_topic(signer):
            return False
        try:
            signed = await self._recover(endpoint, changes[-1].transaction_hash)
        except UnprovableError:
            return False
        return signed.signer == self.earner and signed.data.hex() == SET_OPERATOR_SELECTOR[2:] + abi_word(signer)

    async def _operator_changes(self, endpoint: Endpoint, at: BlockNumber) -> list[RpcLog]:
        """List the changes of the Earner's operator up to and including a block, in order, as an endpoint shows them."""
        if (await endpoint.get_header("latest")).to_block_ref().number < at:
            raise endpoint.inconsistent_fault("eth_getLogs", f"does not have block {at} of the approval")
        reader = LogReader(self.contract, (OPERATOR_CHANGED_TOPIC,), indexed_filters=(address_topic(self.earner),))
        reader.spans[endpoint.url] = max(1, at - self.deploy_block + 1)
        return [log async for logs in reader.read_ranges(endpoint, self.deploy_block, at) for log in logs if len(log.topics) == 3]

    async def _binds(self, lease: Lease, endpoint: Endpoint) -> bool:
        """Whether the lease's id is the hash of its terms, its arbiter and a nonce of the Spender.

        An endpoint only names what to try: another arbiter or nonce than the lease's own gives another hash.
        """
        if lease.data_product_id is None or lease.expires_at is None:
            return False
        arbiter = await fetch_arbiter(endpoint, self.contract, lease.key.lease_id)
        if arbiter is None:
            return False
        data = NONCE_OF_SELECTOR + abi_word(lease.spender)
        for block, tries in ((lease.created_block, NEAR_NONCES), ("latest", FAR_NONCES)):
            try:
                answer = await endpoint.eth_call(self.contract, data, block)
            except RpcFault as fault:
                if fault.kind in OLD_STATE_FAULTS and block != "latest":
                    continue
                raise
            following = int.from_bytes(answer[:32], "big")
            for nonce in range(following - 1, max(-1, following - 1 - tries), -1):
                if compute_lease_id(self.chain_id, self.contract, lease, arbiter, nonce) == lease.key.lease_id:
                    return True
        return False

    # -- two endpoints that agree

    async def _agrees(self, lease: Lease, tx_hash: Hash32, first: Endpoint, second: Endpoint) -> bool:
        assert lease.approved_block is not None
        blocks = (lease.created_block, lease.approved_block)
        for block in dict.fromkeys(blocks):
            if (await first.get_header(block)).hash != (await second.get_header(block)).hash:
                return False
        if self.contract_version is ContractVersion.V1 and not await self._binds(lease, first):
            return False
        for endpoint in (first, second):
            if not await self._includes(endpoint, lease, tx_hash):
                return False
        histories = [await self._history(endpoint, lease, blocks) for endpoint in (first, second)]
        if histories[0] != histories[1] or not any(tx_hash in line for line in histories[0]):
            return False
        if self.contract_version is ContractVersion.V0:
            leases = [await fetch_v0_lease(endpoint, self.contract, lease.key.lease_id, "latest") for endpoint in (first, second)]
            return (
                leases[0] == leases[1]
                and leases[0].approved
                and (leases[0].spender, leases[0].earner, leases[0].data_product_id)
                == (lease.spender, lease.earner, lease.data_product_id)
            )
        return True

    async def _includes(self, endpoint: Endpoint, lease: Lease, tx_hash: Hash32) -> bool:
        """Whether the approving transaction succeeded in its block with this approval among its logs."""
        assert lease.approved_block is not None
        receipt = await endpoint.call_nullable("eth_getTransactionReceipt", [tx_hash], TransactionReceipt)
        if receipt is None:
            return False
        block = await endpoint.get_header(lease.approved_block)
        return (
            receipt.block_hash.lower() == block.hash
            and endpoint.parse_number(receipt.status, "eth_getTransactionReceipt") == 1
            and any(
                found.address.lower() == self.contract
                and [text.lower() for text in found.topics] == [LEASE_APPROVED_TOPIC, lease.key.lease_id]
                for found in receipt.logs
            )
        )

    async def _history(self, endpoint: Endpoint, lease: Lease, blocks: tuple[int, ...]) -> list[str]:
        logs = []
        for block in dict.fromkeys(blocks):
            where = {
                "address": self.contract,
                "fromBlock": hex(block),
                "toBlock": hex(block),
                "topics": [None, lease.key.lease_id],
            }
            logs.extend(await endpoint.call_method("eth_getLogs", [where], list[RpcLog]))
        return sorted(
            json.dumps([found.block_hash, found.log_index, found.transaction_hash, found.topics, found.data]) for found in logs
        )


def compute_lease_id(chain_id: int, contract: Address, lease: Lease, arbiter: Address, nonce: int) -> str:
    """Compute the id that a lease's terms, this arbiter and this nonce of its Spender give."""
    assert lease.data_product_id is not None
    assert lease.expires_at is not None
    return derive_lease_id(
        chain_id=chain_id,
        contract=contract,
        spender=lease.spender,
        earner=lease.earner,
        data_product_id=lease.data_product_id,
        price=lease.price,
        expires_at=lease.expires_at,
        max_computations=lease.max_computations,
        arbiter=arbiter,
        nonce=nonce,
    )
