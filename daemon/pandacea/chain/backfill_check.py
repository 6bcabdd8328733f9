"""The second reading: ranges that were settled from one answer are asked for again, elsewhere if possible, until two agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import RpcFault
from pandacea.chain.source import ChainSource
from pandacea.domain.chain_view import BlockRef, ChainEvent
from pandacea.domain.ids import LeaseId
from pandacea.errors import Unavailable
from pandacea.flows.backfill_check import check_range, rebuild_lease, replace_range_digest
from pandacea.flows.chain_store import ChainStore

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class BackfillChecker:
    """Reads settled ranges again, one after the other, and folds leases anew where the readings differ."""

    endpoints: EndpointPool
    source: ChainSource
    chain_store: ChainStore
    lease_cache: InMemoryLeaseCache
    pick_second: Callable[[Endpoint], Endpoint]
    deploy_block: int
    repaired_leases: int = 0
    """Leases whose row gained something."""

    async def run(self, every: float, caught_up: asyncio.Event) -> None:
        """One range every so many seconds, for ever; not before the head is reached, for until then nothing is believed anyway."""
        await caught_up.wait()
        while True:
            await asyncio.sleep(every)
            try:
                await self.check_oldest_range()
            except Unavailable as problem:
                log.info("chain.audit-postponed", because=problem.detail)

    async def check_oldest_range(self) -> bool:
        """Read the oldest waiting range again; False when none waits.

        Raises:
            Unavailable: an endpoint or the database failed.
        """
        async with self.chain_store.unit_of_work() as tx:
            waiting = await tx.chain.find_backfill_range()
        if waiting is None:
            return False
        first, last, _ = waiting
        endpoint = self.pick_second(await self.endpoints.pick_endpoint())
        try:
            events = await self._read(endpoint, self.source.reader, first, last)
            agree, leases = await check_range(events, self.chain_store)
            if not agree:
                log.warning("chain.readings-differ", endpoint=endpoint.name, first=first, last=last, leases=len(leases))
                for lease_id in leases:
                    await self._mend(endpoint, lease_id)
                await replace_range_digest(first, last, events, self.chain_store)
        except RpcFault as fault:
            self.endpoints.record_failure(endpoint, fault)
            raise
        return True

    async def _mend(self, endpoint: Endpoint, lease_id: LeaseId) -> None:
        base = self._base()
        if base is None:
            return
        reader = LogReader(self.source.contract, self.source.reader.topics, indexed_filters=(lease_id,))
        reader.spans[endpoint.url] = base.number - self.deploy_block + 1
        history = await self._read(endpoint, reader, self.deploy_block, base.number)
        if await rebuild_lease(lease_id, history, base, self.chain_store, self.lease_cache):
            self.repaired_leases += 1
            log.warning("chain.lease-mended", lease_id=lease_id)

    async def _read(self, endpoint: Endpoint, reader: LogReader, first: int, last: int) -> list[ChainEvent]:
        events: list[ChainEvent] = []
        at = first
        while at <= last:
            end, logs = await reader.read_range(endpoint, at, last)
            events.extend(await self.source.decode_events(endpoint, logs))
            at = end + 1
        return events

    def _base(self) -> BlockRef | None:
        return None if self.lease_cache.chain_view is None else self.lease_cache.chain_view.base
