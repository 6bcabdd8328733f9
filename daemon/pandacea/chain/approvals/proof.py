"""The proof of approval: what an RPC endpoint cannot make up.

The approving transaction is fetched, its hash recomputed, its signer recovered; it must be the Earner's or an operator's, on this
chain, to this contract, and call approveLease with this id. The id must be the hash of the terms the node was shown. Where that
cannot be had, endpoints of two operators must show the same lease.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from eth_utils.crypto import keccak

from pandacea.chain.approvals.signed_transactions import RecoveredTransaction, UnprovableError, recover_transaction
from pandacea.chain.contract_versions import APPROVE_LEASE_SELECTOR, NONCE_OF_SELECTOR, ContractVersion, abi_word, fetch_v0_lease
from pandacea.chain.events import address_topic, event_topic, function_selector
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.rpc_messages import RpcLog, RpcTransaction, TransactionReceipt
from pandacea.domain.approval_proof import ProofStatus, digest_lease_terms
from pandacea.domain.ids import Address, BlockNumber, Hash32
from pandacea.domain.lease import Lease
from pandacea.domain.lease_record import LeaseRecord
from pandacea.flows.chain_store import StoredProof

OPERATOR_CHANGED_TOPIC: Final = event_topic("OperatorChanged(address,address)")
LEASE_APPROVED_TOPIC: Final = event_topic("LeaseApproved(bytes32)")
SET_OPERATOR_SELECTOR: Final = function_selector("setOperator(address)")

NEAR_NONCES: Final = 256
FAR_NONCES: Final = 4_096
"""How many of a Spender's nonces are tried: around the creation's block, then from the newest down."""


@dataclass(slots=True)
class ApprovalProver:
    """Proves approvals of one contract's leases."""

    contract: Address
    chain_id: int
    contract_version: ContractVersion
    earner: Address
    approvers: frozenset[Address]
    deploy_block: int

    async def prove_approval(self, held: LeaseRecord, endpoint: Endpoint, independent: Endpoint | None) -> StoredProof:
        """Find out why the approval of a lease may be trusted; `witness`: an endpoint that another operator runs.

        Raises:
            RpcFault: an endpoint failed; nothing was decided.
        """
        lease = held.lease
        terms = digest_lease_terms(lease)
        if held.approved_tx is None:
            return StoredProof(ProofStatus.UNPROVEN, terms, None, "no approving transaction is known")
        reason, signer = await self._signature(held, held.approved_tx, endpoint, independent)
        if signer is not None:
            return StoredProof(ProofStatus.SIGNED, terms, held.approved_tx, signer)
        if independent is not None and await self._agrees(lease, held.approved_tx, endpoint, independent):
            return StoredProof(ProofStatus.AGREED, terms, held.approved_tx, f"{endpoint.name} and {independent.name}")
        return StoredProof(ProofStatus.UNPROVEN, terms, held.approved_tx, reason)

    # -- the Earner's signature

    async def _signature(
        self, held: LeaseRecord, tx_hash: Hash32, endpoint: Endpoint, witness: Endpoint | None
    ) -> tuple[str, Address | None]:
        lease = held.lease
        if self.contract_version is ContractVersion.V0:
            return "ids of the old contract do not bind the terms", None
        signed = await self._signed(endpoint, tx_hash)
        if isinstance(signed, str):
            return signed, None
        if signed.data.hex() != APPROVE_LEASE_SELECTOR[2:] + abi_word(lease.key.lease_id):
            return "the transaction does not call approveLease with this id", None
        assert lease.approved_block is not None
        if not await self._may_approve(signed.signer, lease.approved_block, endpoint, witness):
            return f"it was signed by {signed.signer}, who is neither the Earner nor was the operator at that block", None
        if not await self._binds(lease, endpoint):
            return "the id is not the hash of the terms that were shown", None
        return "", signed.signer

    async def _signed(self, endpoint: Endpoint, tx_hash: Hash32) -> RecoveredTransaction | str:
        transaction = await endpoint.call_nullable("eth_getTransactionByHash", [tx_hash], RpcTransaction)
        if transaction is None:
            raise endpoint.inconsistent_fault("eth_getTransactionByHash", f"has a log but not its transaction {tx_hash}")
        try:
            signed = recover_transaction(transaction)
        except UnprovableError as problem:
            return f"the approving transaction cannot be checked: {problem}"
        if signed.hash != tx_hash:
            return "the approving transaction does not have the hash it is shown under"
        if signed.chain_id != self.chain_id:
            return f"it was signed for chain {signed.chain_id}"
        if signed.to != self.contract:
            return "it was sent to another contract (a wallet contract or a relay)"
        return signed

    async def _may_approve(self, signer: Address, at: BlockNumber, endpoint: Endpoint, witness: Endpoint | None) -> bool:
        """Whether it is the Earner, this node's own key, or was the operator in a block.

        Appointed by the Earner's own signature, and by no endpoint's account replaced up to that block: a key that was stolen and taken
        back approves nothing more. An appointment needs its proof; that it ended is a denial, which needs none.
        """
        if signer == self.earner or signer in self.approvers:
            return True
        for one in (endpoint, witness):
            if one is not None and not await self._was_operator(signer, at, one):
                return False
        return True

    async def _was_operator(self, signer: Address, at: BlockNumber, endpoint: Endpoint) -> bool:
        until = await self._operator_changes(endpoint, at)
        # Of what one block holds the last counts: the approval itself may stand before or after it there.
        if not until or until[-1].topics[2] != address_topic(signer):
            return False
        signed = await self._signed(endpoint, until[-1].transaction_hash)
        appointment = SET_OPERATOR_SELECTOR[2:] + abi_word(signer)
        return isinstance(signed, RecoveredTransaction) and signed.signer == self.earner and signed.data.hex() == appointment

    async def _operator_changes(self, endpoint: Endpoint, at: BlockNumber) -> list[RpcLog]:
        """The changes of the Earner's operator up to and including a block, in order, as an endpoint shows them."""
        if (await endpoint.get_header("latest")).to_block_ref().number < at:
            raise endpoint.inconsistent_fault("eth_getLogs", f"has not got block {at} of the approval")
        reader = LogReader(self.contract, (OPERATOR_CHANGED_TOPIC,), indexed_filters=(address_topic(self.earner),))
        found: list[RpcLog] = []
        first = self.deploy_block
        reader.spans[endpoint.url] = max(1, at - first + 1)
        while first <= at:
            end, logs = await reader.read_range(endpoint, first, at)
            found.extend(one for one in logs if len(one.topics) == 3)
            first = end + 1
        return found

    async def _binds(self, lease: Lease, endpoint: Endpoint) -> bool:
        """Whether the id is keccak256 over the terms and a nonce of the Spender's. An endpoint may tell which; the hash decides."""
        if lease.data_product_id is None or lease.expires_at is None:
            return False
        data = NONCE_OF_SELECTOR + abi_word(lease.spender)
        for block, tries in ((lease.created_block, NEAR_NONCES), ("latest", FAR_NONCES)):
            try:
                answer = await endpoint.eth_call(self.contract, data, block)
            except RpcFault as fault:
                if fault.kind is FaultKind.ERROR and block != "latest":
                    continue  # it keeps no state that old
                raise
            following = int.from_bytes(answer[:32], "big")
            for nonce in range(following - 1, max(-1, following - 1 - tries), -1):
                if compute_lease_id(self.chain_id, self.contract, lease, nonce) == lease.key.lease_id:
                    return True
        return False

    # -- a second endpoint

    async def _agrees(self, lease: Lease, tx_hash: Hash32, one: Endpoint, other: Endpoint) -> bool:
        assert lease.approved_block is not None
        blocks = (lease.created_block, lease.approved_block)
        for block in dict.fromkeys(blocks):
            if (await one.get_header(block)).hash != (await other.get_header(block)).hash:
                return False
        if self.contract_version is ContractVersion.V1 and not await self._binds(lease, one):
            return False
        for endpoint in (one, other):
            if not await self._includes(endpoint, lease, tx_hash):
                return False
        here = [await self._history(endpoint, lease, blocks) for endpoint in (one, other)]
        if here[0] != here[1] or not any(tx_hash in line for line in here[0]):
            return False
        if self.contract_version is ContractVersion.V0:
            heads = [await fetch_v0_lease(endpoint, self.contract, lease.key.lease_id, "latest") for endpoint in (one, other)]
            return (
                heads[0] == heads[1]
                and heads[0].approved
                and (heads[0].spender, heads[0].earner, heads[0].data_product_id)
                == (lease.spender, lease.earner, lease.data_product_id)
            )
        return True

    async def _includes(self, endpoint: Endpoint, lease: Lease, tx_hash: Hash32) -> bool:
        """Whether the approving transaction ran in its block, and this approval is among its logs."""
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


def compute_lease_id(chain_id: int, contract: Address, lease: Lease, nonce: int) -> str:
    """keccak256(abi.encode(chainid, contract, spender, earner, dataProductId, price, expiresAt, maxComputations, nonce))."""
    assert lease.data_product_id is not None
    assert lease.expires_at is not None
    words: tuple[str | int, ...] = (
        chain_id,
        contract,
        lease.spender,
        lease.earner,
        lease.data_product_id,
        lease.price,
        lease.expires_at,
        lease.max_computations,
        nonce,
    )
    return "0x" + keccak(hexstr="".join(map(abi_word, words))).hex()
