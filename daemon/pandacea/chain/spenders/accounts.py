"""Which Spenders are plain keys: whoever's own signature created a lease is one for ever, and no endpoint is asked who signs for them.

Found out beside the follower, once for each Spender, before anybody sends a request: a stranger who names a Spender makes no call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import structlog

from pandacea.chain.approvals.signed_transactions import UnprovableError, recover_transaction
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.events import LEASE_CREATED_TOPIC
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.rpc_messages import RpcTransaction
from pandacea.domain.ids import Address, Hash32, LeaseId
from pandacea.errors import Unavailable
from pandacea.flows.approval_proof import load_lease
from pandacea.flows.chain_store import ChainStore
from pandacea.tasks import retry_until_available

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 30.0
"""Seconds before a Spender who could not be looked at is looked at again."""


class AccountKind(StrEnum):
    """What stands behind a Spender's address."""

    UNKNOWN = "unknown"  # not looked at yet
    EOA = "plain"  # a key, proved by its signature
    CONTRACT = "contract"  # no such proof is to be had: its leases were made through another contract


@dataclass(slots=True)
class SpenderAccounts:
    """Looks at the creation of Spenders' leases."""

    endpoints: EndpointPool
    chain_store: ChainStore
    lease_cache: InMemoryLeaseCache
    contract: Address
    now: Callable[[], float]
    named_wallets: frozenset[Address] = frozenset()
    """Contracts that the operator named."""
    eoas: set[Address] = field(default_factory=set)
    creators: dict[Address, Address | None] = field(default_factory=dict)
    """Spenders without a proof -> who signed the transaction that created their lease, where that can be told."""
    _waiting: dict[Address, LeaseId] = field(default_factory=dict)
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _everybody: bool = field(init=False)

    def __post_init__(self) -> None:
        # With endpoints of one operator only the named are ever asked, so nobody else need be looked at.
        self._everybody = len(self.endpoints.one_per_operator()) > 1

    def kind_of(self, address: Address) -> AccountKind:
        """What is known of a Spender; O(1), no call."""
        if address in self.eoas:
            return AccountKind.EOA
        return AccountKind.CONTRACT if address in self.creators else AccountKind.UNKNOWN

    def enqueue_changed(self, leases: Iterable[LeaseId]) -> None:
        """Queue the Spenders of these leases, unless they are proved already."""
        for lease_id in leases:
            lease = self.lease_cache.peek(lease_id)
            if lease is not None and lease.spender not in self.eoas and (self._everybody or lease.spender in self.named_wallets):
                self._waiting[lease.spender] = lease_id
        if self._waiting:
            self._work.set()

    async def run(self, caught_up: asyncio.Event) -> None:
        """Look at whoever waits, one after the other, for ever."""
        await caught_up.wait()
        self.eoas |= await retry_until_available(
            self.chain_store.list_plain_keys, pause=lambda: RETRY_SECONDS, log_event="spender.accounts_not_loaded", log_level="info"
        )
        self.enqueue_changed(self.lease_cache.list_ids())
        while True:
            await self._work.wait()
            self._work.clear()
            for address, lease_id in list(self._waiting.items()):
                try:
                    await self._look(address, lease_id)
                except Unavailable as problem:
                    log.info("spender.not-looked-at", spender=address, because=problem.detail)
                    asyncio.get_running_loop().call_later(RETRY_SECONDS, self._work.set)
                else:
                    if self._waiting.get(address) == lease_id:
                        del self._waiting[address]

    async def _look(self, address: Address, lease_id: LeaseId) -> None:
        if address in self.eoas:
            return
        held = await load_lease(lease_id, self.chain_store)
        if held is None:
            return
        endpoint = await self.endpoints.pick_endpoint()
        witness = await self.endpoints.find_independent(endpoint)
        creator: Address | None = None
        for one in (endpoint, witness):
            if one is None:
                continue
            try:
                creator, tx_hash = await self._creator(one, lease_id, held.created_block)
            except RpcFault as fault:
                if fault.kind not in {FaultKind.INCONSISTENT, FaultKind.ERROR, FaultKind.NULL}:
                    self.endpoints.record_failure(one, fault)
                raise
            if creator == address:  # no endpoint can make that signature up
                await self.chain_store.save_plain_key(address, tx_hash, int(self.now()))
                self.eoas.add(address)
                self.creators.pop(address, None)
                if address in self.named_wallets:
                    log.warning("spender.named-wallet-is-a-plain-key", spender=address, transaction=tx_hash)
                return
        self.creators[address] = creator
        log.info("spender.contract", spender=address, lease_id=lease_id, created_by=creator)

    async def _creator(self, endpoint: Endpoint, lease_id: LeaseId, block: int) -> tuple[Address | None, Hash32]:
        """Who signed the transaction in which an endpoint shows a lease's creation; None: it carries no signature to check."""
        _, logs = await LogReader(self.contract, (LEASE_CREATED_TOPIC,), indexed_filters=(lease_id,)).read_range(
            endpoint, block, block
        )
        if not logs:
            raise endpoint.inconsistent_fault("eth_getLogs", f"shows no creation of lease {lease_id} in block {block}")
        tx_hash = logs[0].transaction_hash
        transaction = await endpoint.call_nullable("eth_getTransactionByHash", [tx_hash], RpcTransaction)
        if transaction is None:
            raise endpoint.inconsistent_fault("eth_getTransactionByHash", f"has a log but not its transaction {tx_hash}")
        try:
            return recover_transaction(transaction).signer, tx_hash
        except UnprovableError:
            return None, tx_hash
