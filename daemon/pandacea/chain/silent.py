"""What the first contracts do not emit: they raise disputes silently, so their leases are asked for again and again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

import structlog

from pandacea.chain.book import LeaseBookInMemory
from pandacea.chain.endpoints import Endpoints
from pandacea.chain.faults import RpcFault
from pandacea.chain.interfaces import lease_head
from pandacea.domain.ids import Address, LeaseId
from pandacea.domain.lease import FINAL
from pandacea.domain.trust import TRUSTED
from pandacea.errors import Unavailable

log = structlog.get_logger(__name__)

EACH_ROUND: Final = 100
"""Leases asked for in one round; where there are more, they take turns."""


@dataclass(slots=True)
class SilentDisputes:
    """For v0 only: what `getLease` shows as disputed is denied, until it shows so no more."""

    endpoints: Endpoints
    book: LeaseBookInMemory
    contract: Address
    disputed: set[LeaseId] = field(default_factory=set)
    _next: int = 0

    async def run(self, every: float, caught_up: asyncio.Event) -> None:
        """One round every so many seconds, for ever."""
        await caught_up.wait()
        while True:
            try:
                await self.look()
            except Unavailable as problem:  # an RpcFault too; what was seen before stands
                log.info("chain.disputes-not-looked-at", because=problem.detail)
            await asyncio.sleep(every)

    async def look(self) -> None:
        """Ask for the leases whose turn it is.

        Raises:
            Unavailable: no endpoint can tell now.
        """
        leases = [lease_id for lease_id in self.book.ids() if self._may_be_used(lease_id)]
        self.disputed.intersection_update(leases)
        if len(leases) > EACH_ROUND:
            start = self._next % len(leases)
            leases = (leases[start:] + leases[:start])[:EACH_ROUND]
            self._next = start + EACH_ROUND
        endpoint = await self.endpoints.pick()
        try:
            for lease_id in leases:
                head = await lease_head(endpoint, self.contract, lease_id, "latest")
                (self.disputed.add if head.disputed else self.disputed.discard)(lease_id)
        except RpcFault as fault:
            self.endpoints.failed(endpoint, fault)
            raise
        finally:
            self.book.doubt("getLease", self.disputed)

    def _may_be_used(self, lease_id: LeaseId) -> bool:
        lease = self.book.peek(lease_id)
        return lease is not None and lease.trust in TRUSTED and lease.status not in FINAL
