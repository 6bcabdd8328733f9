"""Checks the backfill: settled ranges are read again, elsewhere if possible, until two answers agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import structlog

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import RpcFault
from pandacea.chain.source import ChainSource
from pandacea.domain.chain_view import ChainEvent
from pandacea.domain.ids import LeaseId
from pandacea.flows.backfill_check import check_range, rebuild_lease, replace_range_digest
from pandacea.flows.chain_store import ChainStore
from pandacea.tasks import run_every

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class BackfillChecker:
    """Reads settled ranges again, one after the other, and rebuilds leases where the answers differ."""

    endpoints: EndpointPool
    source: ChainSource
    chain_store: ChainStore
    lease_cache: InMemoryLeaseCache
    pick_second: Callable[[Endpoint], Endpoint]
    deploy_block: int
    repaired_leases: int = 0
    """Leases whose row gained a fact."""

    async def run(self, interval: float, caught_up: asyncio.Event) -> NoReturn:
        """Check one range every `interval` seconds until cancelled, once the head was reached."""
        await caught_up.wait()
        await asyncio.sleep(interval)
        await run_every(interval, self.check_oldest_range, name="chain-backfill-check", log_event="chain.backfill_check_postponed")

    async def check_oldest_range(self) -> bool:
        """Read the oldest unchecked range again; False when there is none.

        Raises:
            Unavailable: an endpoint or the database failed.
        """
        async with self.chain_store.unit_of_work() as tx:
            unchecked = await tx.chain.find_backfill_range()
        if unchecked is None:
            return False
        first, last, _ = unchecked
        endpoint = self.pick_second(await self.endpoints.pick_endpoint())
        try:
            events = await self._read(endpoint, self.source.reader, first, last)
            agree, leases = await check_range(events, self.chain_store)
            if not agree:
                log.warning("chain.readings_differ", endpoint=endpoint.name, first=first, last=last, leases=len(leases))
                for lease_id in leases:
                    await self._rebuild_lease(endpoint, lease_id)
                await replace_range_digest(first, last, events, self.chain_store)
        except RpcFault as fault:
            self.endpoints.record_failure(endpoint, fault)
            raise
        return True

    async def _rebuild_lease(self, endpoint: Endpoint, lease_id: LeaseId) -> None:
        if self.lease_cache.chain_view is None:
            return
        base = self.lease_cache.chain_view.base
        reader = LogReader(self.source.contract, self.source.reader.topics, indexed_filters=(lease_id,))
        reader.spans[endpoint.url] = base.number - self.deploy_block + 1
        history = await self._read(endpoint, reader, self.deploy_block, base.number)
        if await rebuild_lease(lease_id, history, base, self.chain_store, self.lease_cache):
            self.repaired_leases += 1
            log.warning("chain.lease_rebuilt", lease_id=lease_id)

    async def _read(self, endpoint: Endpoint, reader: LogReader, first: int, last: int) -> list[ChainEvent]:
        events: list[ChainEvent] = []
        async for logs in reader.read_ranges(endpoint, first, last):
            events.extend(await self.source.decode_events(endpoint, logs))
        return events
