"""The second reading: ranges that were settled from one answer are asked for again, elsewhere if possible, until two agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from pandacea.chain.book import LeaseBookInMemory
from pandacea.chain.endpoints import Endpoints
from pandacea.chain.faults import RpcFault
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.source import ChainSource
from pandacea.domain.ids import LeaseId
from pandacea.domain.seen import BlockRef, SeenEvent
from pandacea.errors import Unavailable
from pandacea.flows.records import ChainRecords
from pandacea.flows.reread import mend, reread, reread_again

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Audit:
    """Reads settled ranges again, one after the other, and folds leases anew where the readings differ."""

    endpoints: Endpoints
    source: ChainSource
    records: ChainRecords
    book: LeaseBookInMemory
    second: Callable[[Endpoint], Endpoint]
    deploy_block: int
    mended: int = 0
    """Leases whose row gained something."""

    async def run(self, every: float, caught_up: asyncio.Event) -> None:
        """One range every so many seconds, for ever; not before the head is reached, for until then nothing is believed anyway."""
        await caught_up.wait()
        while True:
            await asyncio.sleep(every)
            try:
                await self.one()
            except Unavailable as problem:
                log.info("chain.audit-postponed", because=problem.detail)

    async def one(self) -> bool:
        """Read the oldest waiting range again; False when none waits.

        Raises:
            Unavailable: an endpoint or the database failed.
        """
        async with self.records.write() as tx:
            waiting = await tx.oldest_range()
        if waiting is None:
            return False
        first, last, _ = waiting
        endpoint = self.second(await self.endpoints.pick())
        try:
            events = await self._read(endpoint, self.source.reader, first, last)
            agree, leases = await reread(events, self.records)
            if not agree:
                log.warning("chain.readings-differ", endpoint=endpoint.name, first=first, last=last, leases=len(leases))
                for lease_id in leases:
                    await self._mend(endpoint, lease_id)
                await reread_again(first, last, events, self.records)
        except RpcFault as fault:
            self.endpoints.failed(endpoint, fault)
            raise
        return True

    async def _mend(self, endpoint: Endpoint, lease_id: LeaseId) -> None:
        base = self._base()
        if base is None:
            return
        reader = LogReader(self.source.contract, self.source.reader.topics, more=(lease_id,))
        reader.spans[endpoint.url] = base.number - self.deploy_block + 1
        history = await self._read(endpoint, reader, self.deploy_block, base.number)
        if await mend(lease_id, history, base, self.records, self.book):
            self.mended += 1
            log.warning("chain.lease-mended", lease_id=lease_id)

    async def _read(self, endpoint: Endpoint, reader: LogReader, first: int, last: int) -> list[SeenEvent]:
        events: list[SeenEvent] = []
        at = first
        while at <= last:
            end, logs = await reader.read(endpoint, at, last)
            events.extend(await self.source.events(endpoint, logs))
            at = end + 1
        return events

    def _base(self) -> BlockRef | None:
        return None if self.book.view is None else self.book.view.base
