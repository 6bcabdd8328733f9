"""The queue of approvals to prove: newest wanted first, one at a time, beside the follower and never in its way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

from pandacea.chain.book import LeaseBookInMemory
from pandacea.chain.endpoints import Endpoints
from pandacea.chain.faults import Fault, RpcFault
from pandacea.chain.proof import Prover
from pandacea.domain.ids import LeaseId
from pandacea.domain.trust import Trust
from pandacea.errors import Unavailable
from pandacea.flows.records import ChainRecords
from pandacea.flows.vouch import held_now, prove

log = structlog.get_logger(__name__)

ASK_AGAIN: Final = 60.0
"""Seconds before a lease found unproven is looked at again."""
SOON: Final = 1.0
"""Seconds before a proof that could not be had is tried again."""


@dataclass(slots=True)
class Proving:
    """Works through the leases whose approval nobody has vouched for yet."""

    prover: Prover
    endpoints: Endpoints
    records: ChainRecords
    book: LeaseBookInMemory
    now: Callable[[], float]
    waiting: dict[LeaseId, None] = field(default_factory=dict)
    asked: dict[LeaseId, float] = field(default_factory=dict)
    """Unproven leases and when they may be tried again (`time.monotonic()`)."""
    proved: int = 0
    _work: asyncio.Event = field(default_factory=asyncio.Event)

    def want(self, lease_id: LeaseId) -> None:
        """Somebody asks for this lease now."""
        if lease_id not in self.waiting and self.asked.get(lease_id, 0.0) <= time.monotonic():
            self.waiting[lease_id] = None
            self._work.set()

    def changed(self, leases: Iterable[LeaseId]) -> None:
        """After a commit or a load: queue the approvals that are new and of use."""
        now = self.now()
        for lease_id in leases:
            if self.book.worth_proving(lease_id, now):
                self.asked.pop(lease_id, None)
                self.want(lease_id)

    async def run(self, caught_up: asyncio.Event) -> None:
        """Prove what waits, for ever; not before the head is reached, for until then nothing is believed anyway."""
        await caught_up.wait()
        while True:
            await self._work.wait()
            self._work.clear()
            while self.waiting:
                lease_id = next(reversed(self.waiting))
                try:
                    await self._one(lease_id)
                except Unavailable as problem:
                    # It may be gone with a reorg, or its endpoint behind: look at the others first, and at this one again later.
                    self.waiting.pop(lease_id, None)
                    self.asked[lease_id] = time.monotonic() + SOON
                    asyncio.get_running_loop().call_later(SOON, self.changed, (lease_id,))
                    log.info("lease.proof-postponed", lease_id=lease_id, because=problem.detail)
                    await asyncio.sleep(min(self.endpoints.wait(), 5.0))
                else:
                    self.waiting.pop(lease_id, None)

    async def _one(self, lease_id: LeaseId) -> None:
        known = self.book.peek(lease_id)
        if known is None or known.trust not in {Trust.PENDING, Trust.UNPROVEN}:
            return
        held = await held_now(lease_id, self.records)
        if held is None or held.lease.approved_block is None:
            return
        endpoint = await self.endpoints.pick()
        try:
            proof = await self.prover.prove(held, endpoint, await self.endpoints.witness(endpoint))
        except RpcFault as fault:
            if fault.kind not in {Fault.INCONSISTENT, Fault.ERROR, Fault.NULL}:
                self.endpoints.failed(next(one for one in self.endpoints.all if one.name == fault.endpoint), fault)
            raise
        if proof.trust is Trust.UNPROVEN:
            self.asked[lease_id] = time.monotonic() + ASK_AGAIN
            log.warning("lease.approval-unproven", lease_id=lease_id, because=proof.by)
        else:
            self.proved += 1
            log.info("lease.approval-proved", lease_id=lease_id, trust=proof.trust, by=proof.by)
        await prove(lease_id, proof, int(self.now()), self.records, self.book)
