"""The proof of approval: what an RPC endpoint cannot make up.

The approving transaction is fetched, its hash recomputed, its signer recovered; it must be the Earner's or an operator's, on this
chain, to this contract, and call approveLease with this id. The id must be the hash of the terms the node was shown. Where that
cannot be had, two independent endpoints must show the same lease.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from eth_utils.crypto import keccak

from pandacea.chain.decode import as_topic, selector, topic
from pandacea.chain.faults import Fault, RpcFault
from pandacea.chain.interfaces import APPROVE, NONCE_OF, Interface, lease_head, word
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.transactions import Signed, UnprovableError, recover
from pandacea.chain.wire import Log, Transaction
from pandacea.domain.ids import Address, Hash32
from pandacea.domain.lease import Lease
from pandacea.domain.seen import Held
from pandacea.domain.trust import Trust, terms_of
from pandacea.flows.records import KeptProof

OPERATOR_CHANGED: Final = topic("OperatorChanged(address,address)")
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
    operators: set[Address] = field(default_factory=set)
    """Operators that the Earner's own signature made so."""

    async def prove(self, held: Held, endpoint: Endpoint, others: Sequence[Endpoint]) -> KeptProof:
        """Find out why the approval of a lease may be trusted.

        Raises:
            RpcFault: an endpoint failed; nothing was decided.
        """
        lease = held.lease
        terms = terms_of(lease)
        if held.approved_tx is None:
            return KeptProof(Trust.UNPROVEN, terms, None, "no approving transaction is known")
        reason, signer = await self._signature(held, held.approved_tx, endpoint)
        if signer is not None:
            return KeptProof(Trust.SIGNED, terms, held.approved_tx, signer)
        other = next((one for one in others if one.name != endpoint.name), None)
        if other is not None and await self._agrees(lease, held.approved_tx, endpoint, other):
            return KeptProof(Trust.AGREED, terms, held.approved_tx, f"{endpoint.name} and {other.name}")
        return KeptProof(Trust.UNPROVEN, terms, held.approved_tx, reason)

    # -- the Earner's signature

    async def _signature(self, held: Held, tx_hash: Hash32, endpoint: Endpoint) -> tuple[str, Address | None]:
        lease = held.lease
        if self.interface is Interface.V0:
            return "ids of the old contract do not bind the terms", None
        signed = await self._signed(endpoint, tx_hash)
        if isinstance(signed, str):
            return signed, None
        if signed.data.hex() != APPROVE[2:] + word(lease.key.lease_id):
            return "the transaction does not call approveLease with this id", None
        if not await self._may_approve(endpoint, signed.signer):
            return f"it was signed by {signed.signer}, who is neither the Earner nor an operator", None
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

    async def _may_approve(self, endpoint: Endpoint, signer: Address) -> bool:
        if signer == self.earner or signer in self.authorities or signer in self.operators:
            return True
        for found in await self._appointments(endpoint, signer):
            signed = await self._signed(endpoint, Hash32(found.transaction_hash))
            if isinstance(signed, Signed) and signed.signer == self.earner and signed.data.hex() == SET_OPERATOR[2:] + word(signer):
                self.operators.add(signer)
                return True
        return False

    async def _appointments(self, endpoint: Endpoint, operator: Address) -> list[Log]:
        reader = LogReader(self.contract, (OPERATOR_CHANGED,), more=(as_topic(self.earner), as_topic(operator)))
        last = int((await endpoint.header("latest")).number, 16)
        found: list[Log] = []
        at = self.deploy_block
        reader.spans[endpoint.url] = max(1, last - at + 1)
        while at <= last:
            end, logs = await reader.read(endpoint, at, last)
            found.extend(logs)
            at = end + 1
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
