"""Looks again at blocks whose bloom filter announces events that did not come: later, elsewhere, and in the blocks' receipts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NoReturn

import structlog

from pandacea.chain.blocks import UnexplainedBlocks
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.logs import check_logs
from pandacea.chain.rereading.lease_rereader import LeaseRereader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.rpc_messages import BlockReceipt, RpcLog
from pandacea.chain.source import ChainSource
from pandacea.domain.ids import Hash32
from pandacea.flows.following.backfill_check import add_missing_events
from pandacea.flows.following.chain_store import ChainStore
from pandacea.tasks import run_every

log = structlog.get_logger(__name__)

WAIT_SECONDS: Final = 10.0
"""From the first reading of a block to the one that may agree with it."""
RECEIPTS_SECONDS: Final = 60.0
"""From one `eth_getBlockReceipts` to the next, for a full block's receipts are megabytes; blocks in between are done after two readings."""
_WITHOUT_RECEIPTS: Final = frozenset({FaultKind.UNSUPPORTED, FaultKind.ERROR, FaultKind.NULL, FaultKind.RANGE, FaultKind.MALFORMED})


@dataclass(slots=True)
class UnexplainedBlockChecker:
    """Reads waiting blocks again until two readings agree; what the later one shows is stored."""

    endpoints: EndpointPool
    source: ChainSource
    chain_store: ChainStore
    lease_cache: InMemoryLeaseCache
    rereader: LeaseRereader
    pick_second: Callable[[Endpoint], Endpoint]
    wait_seconds: float = WAIT_SECONDS
    receipts_seconds: float = RECEIPTS_SECONDS
    monotonic: Callable[[], float] = time.monotonic
    _receipts_at: float = float("-inf")
    _without_receipts: set[str] = field(default_factory=set)
    """URLs of endpoints that do not answer eth_getBlockReceipts."""

    @property
    def waiting(self) -> UnexplainedBlocks:
        """The blocks that wait."""
        return self.source.unexplained

    async def run(self, caught_up: asyncio.Event) -> NoReturn:
        """Read waiting blocks again until cancelled, once the head was reached."""
        await caught_up.wait()
        await run_every(
            self.wait_seconds / 2, self.check_blocks, name="chain-unexplained-blocks", log_event="chain.unexplained_postponed"
        )

    async def check_blocks(self) -> None:
        """Read every block again that has waited long enough.

        Raises:
            Unavailable: an endpoint or the database failed.
        """
        before = self.monotonic() - self.wait_seconds
        for block_hash, (number, seen_at) in list(self.waiting.items()):
            if seen_at > before:
                continue
            endpoint = self.pick_second(await self.endpoints.pick_endpoint())
            view = self.lease_cache.chain_view
            held = None if view is None else view.block_at(number)
            if held is None or held.hash != block_hash:
                del self.waiting[block_hash]  # reorganised away, or settled: then its range is read again
                continue
            try:
                if not await self._add(endpoint, await self.source.reader.read_block(endpoint, block_hash, number)):
                    await self._add(endpoint, await self._read_receipts(endpoint, block_hash, number))
            except RpcFault as fault:
                self.endpoints.record_failure(endpoint, fault)
                raise
            self.waiting.pop(block_hash, None)

    async def _add(self, endpoint: Endpoint, logs: list[RpcLog]) -> bool:
        """Store the events of a later reading; True: it showed something new."""
        events = await self.source.decode_events(endpoint, logs)
        changed = await add_missing_events(events, self.chain_store, self.lease_cache)
        if changed:
            self.source.counters.healed_logs += len(changed)
            log.warning("chain.missing_logs_found", endpoint=endpoint.name, block=logs[0].number, leases=len(changed))
            self.rereader.enqueue_leases(changed)  # what else was left out of them?
        return bool(changed)

    async def _read_receipts(self, endpoint: Endpoint, block_hash: Hash32, number: int) -> list[RpcLog]:
        """Read our logs from the receipts of a block; none where the endpoint has no receipts or they were asked for just now."""
        if endpoint.url in self._without_receipts or self.monotonic() - self._receipts_at < self.receipts_seconds:
            return []
        self._receipts_at = self.monotonic()
        try:
            receipts = await endpoint.call_method("eth_getBlockReceipts", [hex(number)], list[BlockReceipt])
        except RpcFault as fault:
            if fault.kind not in _WITHOUT_RECEIPTS:
                raise
            if fault.kind is FaultKind.UNSUPPORTED:
                self._without_receipts.add(endpoint.url)
            return []
        reader = self.source.reader
        logs = [
            found
            for receipt in receipts
            for found in receipt.logs
            if found.address.lower() == reader.contract
            and found.topics
            and found.topics[0].lower() in reader.topics
            and found.block_hash.lower() == block_hash
        ]
        return check_logs(endpoint, logs, reader.contract, reader.topics, number, number)
