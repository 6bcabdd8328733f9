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

from pandacea.chain.book import LeaseBookInMemory
from pandacea.chain.decode import CREATED
from pandacea.chain.endpoints import Endpoints
from pandacea.chain.faults import Fault, RpcFault
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.transactions import UnprovableError, recover
from pandacea.chain.wire import Transaction
from pandacea.domain.ids import Address, Hash32, LeaseId
from pandacea.errors import Unavailable
from pandacea.flows.records import ChainRecords
from pandacea.flows.vouch import held_now

log = structlog.get_logger(__name__)

AGAIN: Final = 30.0
"""Seconds before a Spender who could not be looked at is looked at again."""


class SpenderKind(StrEnum):
    """What stands behind a Spender's address."""

    UNKNOWN = "unknown"  # not looked at yet
    PLAIN = "plain"  # a key, proved by its signature
    CONTRACT = "contract"  # no such proof is to be had: its leases were made through another contract


@dataclass(slots=True)
class SpenderKeys:
    """Looks at the creation of Spenders' leases."""

    endpoints: Endpoints
    records: ChainRecords
    book: LeaseBookInMemory
    contract: Address
    now: Callable[[], float]
    wallets: frozenset[Address] = frozenset()
    """Contracts that the operator named."""
    plain: set[Address] = field(default_factory=set)
    creators: dict[Address, Address | None] = field(default_factory=dict)
    """Spenders without a proof -> who signed the transaction that created their lease, where that can be told."""
    _waiting: dict[Address, LeaseId] = field(default_factory=dict)
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _everybody: bool = field(init=False)

    def __post_init__(self) -> None:
        # With endpoints of one operator only the named are ever asked, so nobody else need be looked at.
        self._everybody = len(self.endpoints.one_of_each()) > 1

    def kind(self, address: Address) -> SpenderKind:
        """What is known of a Spender; O(1), no call."""
        if address in self.plain:
            return SpenderKind.PLAIN
        return SpenderKind.CONTRACT if address in self.creators else SpenderKind.UNKNOWN

    def changed(self, leases: Iterable[LeaseId]) -> None:
        """Queue the Spenders of these leases, unless they are proved already."""
        for lease_id in leases:
            lease = self.book.peek(lease_id)
            if lease is not None and lease.spender not in self.plain and (self._everybody or lease.spender in self.wallets):
                self._waiting[lease.spender] = lease_id
        if self._waiting:
            self._work.set()

    async def run(self, caught_up: asyncio.Event) -> None:
        """Look at whoever waits, one after the other, for ever."""
        await caught_up.wait()
        while True:
            try:
                self.plain |= await self.records.plain_keys()
                break
            except Unavailable as problem:
                log.info("spender.keys-not-read", because=problem.detail)
                await asyncio.sleep(AGAIN)
        self.changed(self.book.ids())
        while True:
            await self._work.wait()
            self._work.clear()
            for address, lease_id in list(self._waiting.items()):
                try:
                    await self._look(address, lease_id)
                except Unavailable as problem:
                    log.info("spender.not-looked-at", spender=address, because=problem.detail)
                    asyncio.get_running_loop().call_later(AGAIN, self._work.set)
                else:
                    if self._waiting.get(address) == lease_id:
                        del self._waiting[address]

    async def _look(self, address: Address, lease_id: LeaseId) -> None:
        if address in self.plain:
            return
        held = await held_now(lease_id, self.records)
        if held is None:
            return
        endpoint = await self.endpoints.pick()
        witness = await self.endpoints.witness(endpoint)
        creator: Address | None = None
        for one in (endpoint, witness):
            if one is None:
                continue
            try:
                creator, tx_hash = await self._creator(one, lease_id, held.created_block)
            except RpcFault as fault:
                if fault.kind not in {Fault.INCONSISTENT, Fault.ERROR, Fault.NULL}:
                    self.endpoints.failed(one, fault)
                raise
            if creator == address:  # no endpoint can make that signature up
                await self.records.keep_plain_key(address, tx_hash, int(self.now()))
                self.plain.add(address)
                self.creators.pop(address, None)
                if address in self.wallets:
                    log.warning("spender.named-wallet-is-a-plain-key", spender=address, transaction=tx_hash)
                return
        self.creators[address] = creator
        log.info("spender.contract", spender=address, lease_id=lease_id, created_by=creator)

    async def _creator(self, endpoint: Endpoint, lease_id: LeaseId, block: int) -> tuple[Address | None, Hash32]:
        """Who signed the transaction in which an endpoint shows a lease's creation; None: it carries no signature to check."""
        _, logs = await LogReader(self.contract, (CREATED,), more=(lease_id,)).read(endpoint, block, block)
        if not logs:
            raise endpoint.inconsistent("eth_getLogs", f"shows no creation of lease {lease_id} in block {block}")
        tx_hash = logs[0].transaction_hash
        transaction = await endpoint.maybe("eth_getTransactionByHash", [tx_hash], Transaction)
        if transaction is None:
            raise endpoint.inconsistent("eth_getTransactionByHash", f"has a log but not its transaction {tx_hash}")
        try:
            return recover(transaction).signer, tx_hash
        except UnprovableError:
            return None, tx_hash
