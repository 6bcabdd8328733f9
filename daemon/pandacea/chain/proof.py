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

from pandacea.chain.decode import as_topic, selector, topic
from pandacea.chain.faults import Fault, RpcFault
from pandacea.chain.interfaces import APPROVE, NONCE_OF, Interface, lease_head, word
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.transactions import Signed, UnprovableError, recover
from pandacea.chain.wire import Log, Receipt, Transaction
from pandacea.domain.ids import Address, BlockNumber, Hash32
from pandacea.domain.lease import Lease
from pandacea.domain.seen import Held
from pandacea.domain.trust import Trust, terms_of
from pandacea.flows.records import KeptProof

OPERATOR_CHANGED: Final = topic("OperatorChanged(address,address)")
APPROVED: Final = topic("LeaseApproved(bytes32)")
SET_OPERATOR: Final = selector("setOperator(address)")

NEAR_NONCES: Final = 256
FAR_NONCES: Final = 4_096
"""How many of a Spender's nonces are tried: around the creation's block, then from the newest down."""


@dataclass(slots=True)
class Prover:
    """Proves approvals of one contract's leases."""

    contract: Address
    chain_id: int
    interface: Interface
    earner: Address
    authorities: frozenset[Address]
    deploy_block: int

    async def prove(self, held: Held, endpoint: Endpoint, witness: Endpoint | None) -> KeptProof:
        """Find out why the approval of a lease may be trusted; `witness`: an endpoint that another operator runs.

        Raises:
            RpcFault: an endpoint failed; nothing was decided.
        """
        lease = held.lease
        terms = terms_of(lease)
        if held.approved_tx is None:
            return KeptProof(Trust.UNPROVEN, terms, None, "no approving transaction is known")
        reason, signer = await self._signature(held, held.approved_tx, endpoint, witness)
        if signer is not None:
            return KeptProof(Trust.SIGNED, terms, held.approved_tx, signer)
        if witness is not None and await self._agrees(lease, held.approved_tx, endpoint, witness):
            return KeptProof(Trust.AGREED, terms, held.approved_tx, f"{endpoint.name} and {witness.name}")
        return KeptProof(Trust.UNPROVEN, terms, held.approved_tx, reason)

    # -- the Earner's signature

    async def _signature(
        self, held: Held, tx_hash: Hash32, endpoint: Endpoint, witness: Endpoint | None
    ) -> tuple[str, Address | None]:
        lease = held.lease
        if self.interface is Interface.V0:
            return "ids of the old contract do not bind the terms", None
        signed = await self._signed(endpoint, tx_hash)
        if isinstance(signed, str):
            return signed, None
        if signed.data.hex() != APPROVE[2:] + word(lease.key.lease_id):
            return "the transaction does not call approveLease with this id", None
        assert lease.approved_block is not None
        if not await self._may_approve(signed.signer, lease.approved_block, endpoint, witness):
            return f"it was signed by {signed.signer}, who is neither the Earner nor was the operator at that block", None
        if not await self._binds(lease, endpoint):
            return "the id is not the hash of the terms that were shown", None
        return "", signed.signer

    async def _signed(self, endpoint: Endpoint, tx_hash: Hash32) -> Signed | str:
        transaction = await endpoint.maybe("eth_getTransactionByHash", [tx_hash], Transaction)
        if transaction is None:
            raise endpoint.inconsistent("eth_getTransactionByHash", f"has a log but not its transaction {tx_hash}")
        try:
            signed = recover(transaction)
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
        if signer == self.earner or signer in self.authorities:
            return True
        for one in (endpoint, witness):
            if one is not None and not await self._was_operator(signer, at, one):
                return False
        return True

    async def _was_operator(self, signer: Address, at: BlockNumber, endpoint: Endpoint) -> bool:
        until = await self._operator_changes(endpoint, at)
        # Of what one block holds the last counts: the approval itself may stand before or after it there.
        if not until or until[-1].topics[2] != as_topic(signer):
            return False
        signed = await self._signed(endpoint, until[-1].transaction_hash)
        appointment = SET_OPERATOR[2:] + word(signer)
        return isinstance(signed, Signed) and signed.signer == self.earner and signed.data.hex() == appointment

    async def _operator_changes(self, endpoint: Endpoint, at: BlockNumber) -> list[Log]:
        """The changes of the Earner's operator up to and including a block, in order, as an endpoint shows them."""
        if (await endpoint.header("latest")).ref().number < at:
            raise endpoint.inconsistent("eth_getLogs", f"has not got block {at} of the approval")
        reader = LogReader(self.contract, (OPERATOR_CHANGED,), more=(as_topic(self.earner),))
        found: list[Log] = []
        first = self.deploy_block
        reader.spans[endpoint.url] = max(1, at - first + 1)
        while first <= at:
            end, logs = await reader.read(endpoint, first, at)
            found.extend(one for one in logs if len(one.topics) == 3)
            first = end + 1
        return found

    async def _binds(self, lease: Lease, endpoint: Endpoint) -> bool:
        """Whether the id is keccak256 over the terms and a nonce of the Spender's. An endpoint may tell which; the hash decides."""
        if lease.data_product_id is None or lease.expires_at is None:
            return False
        data = NONCE_OF + word(lease.spender)
        for block, tries in ((lease.created_block, NEAR_NONCES), ("latest", FAR_NONCES)):
            try:
                answer = await endpoint.eth_call(self.contract, data, block)
            except RpcFault as fault:
                if fault.kind is Fault.ERROR and block != "latest":
                    continue  # it keeps no state that old
                raise
            following = int.from_bytes(answer[:32], "big")
            for nonce in range(following - 1, max(-1, following - 1 - tries), -1):
                if lease_id_of(self.chain_id, self.contract, lease, nonce) == lease.key.lease_id:
                    return True
        return False

    # -- a second endpoint

    async def _agrees(self, lease: Lease, tx_hash: Hash32, one: Endpoint, other: Endpoint) -> bool:
        assert lease.approved_block is not None
        blocks = (lease.created_block, lease.approved_block)
        for block in dict.fromkeys(blocks):
            if (await one.header(block)).hash != (await other.header(block)).hash:
                return False
        if self.interface is Interface.V1 and not await self._binds(lease, one):
            return False
        for endpoint in (one, other):
            if not await self._includes(endpoint, lease, tx_hash):
                return False
        here = [await self._history(endpoint, lease, blocks) for endpoint in (one, other)]
        if here[0] != here[1] or not any(tx_hash in line for line in here[0]):
            return False
        if self.interface is Interface.V0:
            heads = [await lease_head(endpoint, self.contract, lease.key.lease_id, "latest") for endpoint in (one, other)]
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
        receipt = await endpoint.maybe("eth_getTransactionReceipt", [tx_hash], Receipt)
        if receipt is None:
            return False
        block = await endpoint.header(lease.approved_block)
        return (
            receipt.block_hash.lower() == block.hash
            and endpoint.number(receipt.status, "eth_getTransactionReceipt") == 1
            and any(
                found.address.lower() == self.contract and [text.lower() for text in found.topics] == [APPROVED, lease.key.lease_id]
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
            logs.extend(await endpoint.call("eth_getLogs", [where], list[Log]))
        return sorted(
            json.dumps([found.block_hash, found.log_index, found.transaction_hash, found.topics, found.data]) for found in logs
        )


def lease_id_of(chain_id: int, contract: Address, lease: Lease, nonce: int) -> str:
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
    return "0x" + keccak(hexstr="".join(map(word, words))).hex()
