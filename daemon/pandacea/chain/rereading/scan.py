"""The slow scan: reads everything since the deployment again, one range at a time, round and round."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import Final, NoReturn

import structlog

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.rereading.lease_rereader import LeaseRereader
from pandacea.chain.rpc_faults import RpcFault
from pandacea.chain.source import ChainSource
from pandacea.domain.ids import LeaseId
from pandacea.flows.following.backfill_check import find_leases_lacking
from pandacea.flows.following.chain_store import ChainStore
from pandacea.tasks import run_every

log = structlog.get_logger(__name__)

STEP_SECONDS: Final = 60.0
"""Between two steps, each of one `eth_getLogs`."""
STEPS_PER_TURN: Final = 1_440
"""Steps of a whole turn: a day's. Where a provider allows smaller ranges a turn takes longer."""
LEAST_BLOCKS: Final = 256
"""Blocks of a step at least: a young contract's turn is shorter than a day."""
MAX_UNAPPROVED: Final = 100_000
"""Unknown creations remembered in a turn, in case an approval follows."""


@dataclass(slots=True)
class SlowScan:
    """Compares every settled event with the rows. Its progress is a row; each step asks an endpoint drawn at random."""

    endpoints: EndpointPool
    source: ChainSource
    chain_store: ChainStore
    lease_cache: InMemoryLeaseCache
    rereader: LeaseRereader
    deploy_block: int
    step_seconds: float = STEP_SECONDS
    rng: random.Random = field(default_factory=random.Random)
    turns: int = 0
    """Whole turns since the start of the process."""
    _unapproved: set[LeaseId] = field(default_factory=set)

    async def run(self, caught_up: asyncio.Event) -> NoReturn:
        """Read one range every `step_seconds` until cancelled, once the head was reached."""
        await caught_up.wait()
        await asyncio.sleep(self.step_seconds)
        await run_every(self.step_seconds, self.scan_some, name="chain-scan", log_event="chain.scan_postponed")

    async def scan_some(self) -> None:
        """Read the next range, and have the leases read again whose rows lack something of it.

        Raises:
            Unavailable: an endpoint or the database failed.
        """
        view = self.lease_cache.chain_view
        if view is None or view.base.number < self.deploy_block:
            return
        base = view.base.number
        async with self.chain_store.unit_of_work() as tx:
            first = max(self.deploy_block, await tx.chain.find_scanned_block() + 1)
        if first > base:
            first = self.deploy_block
            self.turns += 1
            self._unapproved.clear()
        blocks = max(LEAST_BLOCKS, -(-(base - self.deploy_block) // STEPS_PER_TURN))
        followed = await self.endpoints.pick_endpoint()
        others = [other for other in self.endpoints.list_others(followed) if other.verified]
        endpoint = self.rng.choice([followed, *others])
        try:
            last, logs = await self.source.reader.read_range(endpoint, first, min(base, first + blocks - 1))
            events = await self.source.decode_events(endpoint, logs)
        except RpcFault as fault:
            self.endpoints.record_failure(endpoint, fault)
            raise
        lacking, unapproved = await find_leases_lacking(events, self._unapproved, self.chain_store)
        if len(self._unapproved) < MAX_UNAPPROVED:
            self._unapproved |= unapproved
        if lacking:
            log.warning("chain.scan_found", endpoint=endpoint.name, first=first, last=last, leases=len(lacking))
            self.rereader.enqueue_leases(lacking)
        async with self.chain_store.unit_of_work() as tx:
            await tx.chain.save_scanned_block(last)
            await tx.commit()
