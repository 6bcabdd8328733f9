"""The queue of approvals to prove: the one asked for last comes first, one at a time, in a task of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import structlog

from pandacea.chain.approvals.proof import ApprovalProver
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.rpc_faults import ANSWER_FAULTS, RpcFault
from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.ids import LeaseId
from pandacea.errors import Unavailable
from pandacea.flows.following.approval_proof import load_lease, save_proof
from pandacea.flows.following.chain_store import ChainStore

log = structlog.get_logger(__name__)

UNPROVEN_RETRY_SECONDS: Final = 60.0
"""Before a lease that was found unproven is tried again."""
FAILED_RETRY_SECONDS: Final = 1.0
"""Before a lease is tried again whose proof could not be looked for."""


@dataclass(slots=True)
class ProofQueue:
    """Proves the approvals that have no proof yet."""

    prover: ApprovalProver
    endpoints: EndpointPool
    chain_store: ChainStore
    lease_cache: InMemoryLeaseCache
    now: Callable[[], float]
    waiting: dict[LeaseId, None] = field(default_factory=dict)
    retry_at: dict[LeaseId, float] = field(default_factory=dict)
    """Lease -> `time.monotonic()` before which it is not tried again."""
    _work: asyncio.Event = field(default_factory=asyncio.Event)

    def enqueue(self, lease_id: LeaseId) -> None:
        """Put a lease at the front of the queue, unless it was tried a moment ago."""
        if lease_id not in self.waiting and self.retry_at.get(lease_id, 0.0) <= time.monotonic():
            self.waiting[lease_id] = None
            self._work.set()

    def enqueue_changed(self, leases: Iterable[LeaseId]) -> None:
        """Queue those of the changed leases that could be used if their approval were proved."""
        now = self.now()
        for lease_id in leases:
            if self.lease_cache.is_worth_proving(lease_id, now):
                self.retry_at.pop(lease_id, None)
                self.enqueue(lease_id)

    async def run(self, caught_up: asyncio.Event) -> None:
        """Prove queued approvals until cancelled, once the head was reached."""
        await caught_up.wait()
        while True:
            await self._work.wait()
            self._work.clear()
            while self.waiting:
                lease_id = next(reversed(self.waiting))
                try:
                    await self._prove_lease(lease_id)
                except Unavailable as error:
                    # A reorg may have removed it, or the endpoint lags: try the others first, and this one again later.
                    self.waiting.pop(lease_id, None)
                    self.retry_at[lease_id] = time.monotonic() + FAILED_RETRY_SECONDS
                    asyncio.get_running_loop().call_later(FAILED_RETRY_SECONDS, self.enqueue_changed, (lease_id,))
                    log.info("lease.proof_postponed", lease_id=lease_id, reason=error.detail)
                    await asyncio.sleep(min(self.endpoints.seconds_until_ready(), 5.0))
                else:
                    self.waiting.pop(lease_id, None)

    async def _prove_lease(self, lease_id: LeaseId) -> None:
        known = self.lease_cache.peek(lease_id)
        if known is None or known.proof_status not in {ProofStatus.PENDING, ProofStatus.UNPROVEN}:
            return
        record = await load_lease(lease_id, self.chain_store)
        if record is None or record.lease.approved_block is None:
            return
        endpoint = await self.endpoints.pick_endpoint()
        try:
            proof = await self.prover.prove_approval(record, endpoint, await self.endpoints.find_independent(endpoint))
        except RpcFault as fault:
            if fault.kind not in ANSWER_FAULTS:
                self.endpoints.record_failure(
                    next(member for member in self.endpoints.members if member.name == fault.endpoint), fault
                )
            raise
        if proof.status is ProofStatus.UNPROVEN:
            self.retry_at[lease_id] = time.monotonic() + UNPROVEN_RETRY_SECONDS
            log.warning("lease.approval_unproven", lease_id=lease_id, reason=proof.attested_by)
        else:
            log.info("lease.approval_proved", lease_id=lease_id, trust=proof.status, by=proof.attested_by)
        await save_proof(lease_id, proof, int(self.now()), self.chain_store, self.lease_cache)
