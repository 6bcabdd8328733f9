"""Classifies Spenders as externally owned accounts (EOA, a plain key) or contracts.

A Spender whose own signature created a lease is an EOA for good, and no endpoint is asked who signs for it. Each Spender is classified
once, in a task of its own, before it sends a request, so that a stranger who names a Spender causes no call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import structlog

from pandacea.chain.approvals.signed_transactions import UnprovableError, fetch_signed_transaction
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.events import LEASE_CREATED_TOPIC
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import ANSWER_FAULTS, RpcFault
from pandacea.domain.ids import Address, Hash32, LeaseId
from pandacea.errors import Unavailable
from pandacea.flows.following.approval_proof import load_lease
from pandacea.flows.following.chain_store import ChainStore
from pandacea.tasks import retry_until_available

log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 30.0
"""Before a Spender that could not be classified is tried again."""


class AccountKind(StrEnum):
    """What a Spender's address is."""

    UNKNOWN = "unknown"  # not classified yet
    EOA = "plain"  # a plain key, proved by its signature
    CONTRACT = "contract"  # without that proof: its leases were created through another contract


@dataclass(slots=True)
class SpenderAccounts:
    """Classifies Spenders by the transactions that created their leases."""

    endpoints: EndpointPool
    chain_store: ChainStore
    lease_cache: InMemoryLeaseCache
    contract: Address
    now: Callable[[], float]
    named_wallets: frozenset[Address] = frozenset()
    """Contract wallets that the operator named."""
    eoas: set[Address] = field(default_factory=set)
    creators: dict[Address, Address | None] = field(default_factory=dict)
    """Spenders without a proof -> who signed the transaction that created their lease, where that is known."""
    _waiting: dict[Address, LeaseId] = field(default_factory=dict)
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _everybody: bool = field(init=False)

    def __post_init__(self) -> None:
        # With endpoints of one operator only named wallets are ever called, so nobody else need be classified.
        self._everybody = len(self.endpoints.one_per_operator()) > 1

    def kind_of(self, address: Address) -> AccountKind:
        """Return what is known of a Spender; O(1), without a call."""
        if address in self.eoas:
            return AccountKind.EOA
        return AccountKind.CONTRACT if address in self.creators else AccountKind.UNKNOWN

    def enqueue_changed(self, leases: Iterable[LeaseId]) -> None:
        """Queue the Spenders of changed leases, unless they are proved already."""
        for lease_id in leases:
            lease = self.lease_cache.peek(lease_id)
            if lease is not None and lease.spender not in self.eoas and (self._everybody or lease.spender in self.named_wallets):
                self._waiting[lease.spender] = lease_id
        if self._waiting:
            self._work.set()

    async def run(self, caught_up: asyncio.Event) -> None:
        """Classify queued Spenders one after the other until cancelled, once the head was reached."""
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
                    await self._classify(address, lease_id)
                except Unavailable as error:
                    log.info("spender.classification_postponed", spender=address, reason=error.detail)
                    asyncio.get_running_loop().call_later(RETRY_SECONDS, self._work.set)
                else:
                    if self._waiting.get(address) == lease_id:
                        del self._waiting[address]

    async def _classify(self, address: Address, lease_id: LeaseId) -> None:
        if address in self.eoas:
            return
        record = await load_lease(lease_id, self.chain_store)
        if record is None:
            return
        endpoint = await self.endpoints.pick_endpoint()
        independent = await self.endpoints.find_independent(endpoint)
        creator: Address | None = None
        for asked in (endpoint, independent):
            if asked is None:
                continue
            try:
                creator, tx_hash = await self._creator(asked, lease_id, record.created_block)
            except RpcFault as fault:
                if fault.kind not in ANSWER_FAULTS:
                    self.endpoints.record_failure(asked, fault)
                raise
            if creator == address:  # no endpoint can forge that signature
                await self.chain_store.save_plain_key(address, tx_hash, int(self.now()))
                self.eoas.add(address)
                self.creators.pop(address, None)
                if address in self.named_wallets:
                    log.warning("spender.named_wallet_is_eoa", spender=address, transaction=tx_hash)
                return
        self.creators[address] = creator
        log.info("spender.is_contract", spender=address, lease_id=lease_id, created_by=creator)

    async def _creator(self, endpoint: Endpoint, lease_id: LeaseId, block: int) -> tuple[Address | None, Hash32]:
        """Find who signed the transaction that created a lease, as an endpoint shows it; None: its signature cannot be checked."""
        _, logs = await LogReader(self.contract, (LEASE_CREATED_TOPIC,), indexed_filters=(lease_id,)).read_range(
            endpoint, block, block
        )
        if not logs:
            raise endpoint.inconsistent_fault("eth_getLogs", f"shows no creation of lease {lease_id} in block {block}")
        tx_hash = logs[0].transaction_hash
        try:
            return (await fetch_signed_transaction(endpoint, tx_hash)).signer, tx_hash
        except UnprovableError:
            return None, tx_hash
