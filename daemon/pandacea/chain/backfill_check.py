"""Checks settled ranges: each is read again, elsewhere if possible, until two answers agree, and once more minutes later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import structlog

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.logs import LogReader
from pandacea.chain.rereading.lease_rereader import LeaseRereader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import RpcFault
from pandacea.chain.source import ChainSource
from pandacea.domain.chain_view import ChainEvent
from pandacea.flows.following.backfill_check import LATER_SECONDS, check_range, replace_range_digest
from pandacea.flows.following.chain_store import ChainStore
from pandacea.flows.ports import Clock
from pandacea.tasks import run_every

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class BackfillChecker:
    """Reads settled ranges again, one after the other, and rebuilds leases where the answers differ."""

    endpoints: EndpointPool
    source: ChainSource
    chain_store: ChainStore
    pick_second: Callable[[Endpoint], Endpoint]
    rereader: LeaseRereader
    clock: Clock
    later_seconds: float = LATER_SECONDS
    """From two readings that agree to the one that is made much later."""

    async def run(self, interval: float, caught_up: asyncio.Event) -> NoReturn:
        """Check one range every `interval` seconds until cancelled, once the head was reached."""
        await caught_up.wait()
        await asyncio.sleep(interval)
        await run_every(interval, self.check_oldest_range, name="chain-backfill-check", log_event="chain.backfill_check_postponed")

    async def check_oldest_range(self) -> bool:
        """Read the range again that has been due for longest; False when none is due.

        Raises:
            Unavailable: an endpoint or the database failed.
        """
        now = self.clock.now()
        async with self.chain_store.unit_of_work() as tx:
            unchecked = await tx.chain.find_backfill_range(now)
        if unchecked is None:
            return False
        first, last, _, _ = unchecked
        endpoint = self.pick_second(await self.endpoints.pick_endpoint())
        try:
            events = await self._read(endpoint, self.source.reader, first, last)
            agree, leases = await check_range(unchecked, events, self.chain_store, now + self.later_seconds)
            if not agree:
                log.warning("chain.readings_differ", endpoint=endpoint.name, first=first, last=last, leases=len(leases))
                for lease_id in leases:
                    await self.rereader.reread_lease(endpoint, lease_id)
                await replace_range_digest(first, last, events, self.chain_store)
        except RpcFault as fault:
            self.endpoints.record_failure(endpoint, fault)
            raise
        return True

    async def _read(self, endpoint: Endpoint, reader: LogReader, first: int, last: int) -> list[ChainEvent]:
        events: list[ChainEvent] = []
        async for logs in reader.read_ranges(endpoint, first, last):
            events.extend(await self.source.decode_events(endpoint, logs))
        return events
