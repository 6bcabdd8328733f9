"""Polls the disputes of v0 contracts, which raise them without an event."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final, NoReturn

from pandacea.chain.contract_versions import fetch_v0_lease
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.rpc_faults import RpcFault
from pandacea.domain.approval_proof import COUNTED_PROOFS
from pandacea.domain.ids import Address, LeaseId
from pandacea.domain.lease import FINAL_STATUSES
from pandacea.tasks import run_every

LEASES_PER_ROUND: Final = 100
"""Leases asked for in one round; more leases than these take turns."""


@dataclass(slots=True)
class V0DisputePoller:
    """Denies the leases of a v0 contract that `getLease` shows as disputed, for as long as it does."""

    endpoints: EndpointPool
    lease_cache: InMemoryLeaseCache
    contract: Address
    disputed: set[LeaseId] = field(default_factory=set)
    _next: int = 0

    async def run(self, interval: float, caught_up: asyncio.Event) -> NoReturn:
        """Run one round every `interval` seconds until cancelled, once the head was reached; after a failure what was seen stands."""
        await caught_up.wait()
        await run_every(interval, self.check_disputes, name="chain-v0-disputes", log_event="chain.dispute_check_postponed")

    async def check_disputes(self) -> None:
        """Call `getLease` for the leases whose turn it is.

        Raises:
            Unavailable: no endpoint answers now.
        """
        leases = [lease_id for lease_id in self.lease_cache.list_ids() if self._may_be_used(lease_id)]
        self.disputed.intersection_update(leases)
        if len(leases) > LEASES_PER_ROUND:
            start = self._next % len(leases)
            leases = (leases[start:] + leases[:start])[:LEASES_PER_ROUND]
            self._next = start + LEASES_PER_ROUND
        endpoint = await self.endpoints.pick_endpoint()
        try:
            for lease_id in leases:
                head = await fetch_v0_lease(endpoint, self.contract, lease_id, "latest")
                (self.disputed.add if head.disputed else self.disputed.discard)(lease_id)
        except RpcFault as fault:
            self.endpoints.record_failure(endpoint, fault)
            raise
        finally:
            self.lease_cache.set_contested("getLease", self.disputed)

    def _may_be_used(self, lease_id: LeaseId) -> bool:
        lease = self.lease_cache.peek(lease_id)
        return lease is not None and lease.proof_status in COUNTED_PROOFS and lease.status not in FINAL_STATUSES
