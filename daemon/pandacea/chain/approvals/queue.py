"""The queue of approvals to prove: newest wanted first, one at a time, beside the follower and never in its way."""

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
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.ids import LeaseId
from pandacea.errors import Unavailable
from pandacea.flows.approval_proof import load_lease, save_proof
from pandacea.flows.chain_store import ChainStore

log = structlog.get_logger(__name__)

UNPROVEN_RETRY_SECONDS: Final = 60.0
"""Seconds before a lease found unproven is looked at again."""
FAILED_RETRY_SECONDS: Final = 1.0
"""Seconds before a proof that could not be had is tried again."""


@dataclass(slots=True)
class ProofQueue:
    """Works through the leases whose approval nobody has vouched for yet."""

    prover: ApprovalProver
    endpoints: EndpointPool
    chain_store: ChainStore
    lease_cache: InMemoryLeaseCache
    now: Callable[[], float]
    waiting: dict[LeaseId, None] = field(default_factory=dict)
    retry_at: dict[LeaseId, float] = field(default_factory=dict)
    """Unproven leases and when they may be tried again (`time.monotonic()`)."""
    proved_count: int = 0
    _work: asyncio.Event = field(default_factory=asyncio.Event)

    def enqueue(self, lease_id: LeaseId) -> None:
        """Somebody asks for this lease now."""
        if lease_id not in self.waiting and self.retry_at.get(lease_id, 0.0) <= time.monotonic():
            self.waiting[lease_id] = None
            self._work.set()

    def enqueue_changed(self, leases: Iterable[LeaseId]) -> None:
        """After a commit or a load: queue the approvals that are new and of use."""
        now = self.now()
        for lease_id in leases:
            if self.lease_cache.is_worth_proving(lease_id, now):
                self.retry_at.pop(lease_id, None)
                self.enqueue(lease_id)

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
                    self.retry_at[lease_id] = time.monotonic() + FAILED_RETRY_SECONDS
                    asyncio.get_running_loop().call_later(FAILED_RETRY_SECONDS, self.enqueue_changed, (lease_id,))
                    log.info("lease.proof-postponed", lease_id=lease_id, because=problem.detail)
                    await asyncio.sleep(min(self.endpoints.seconds_until_ready(), 5.0))
                else:
                    self.waiting.pop(lease_id, None)

    async def _one(self, lease_id: LeaseId) -> None:
        known = self.lease_cache.peek(lease_id)
        if known is None or known.proof_status not in {ProofStatus.PENDING, ProofStatus.UNPROVEN}:
            return
        held = await load_lease(lease_id, self.chain_store)
        if held is None or held.lease.approved_block is None:
            return
        endpoint = await self.endpoints.pick_endpoint()
        try:
            proof = await self.prover.prove_approval(held, endpoint, await self.endpoints.find_independent(endpoint))
        except RpcFault as fault:
            if fault.kind not in {FaultKind.INCONSISTENT, FaultKind.ERROR, FaultKind.NULL}:
                self.endpoints.record_failure(next(one for one in self.endpoints.members if one.name == fault.endpoint), fault)
            raise
        if proof.status is ProofStatus.UNPROVEN:
            self.retry_at[lease_id] = time.monotonic() + UNPROVEN_RETRY_SECONDS
            log.warning("lease.approval-unproven", lease_id=lease_id, because=proof.attested_by)
        else:
            self.proved_count += 1
            log.info("lease.approval-proved", lease_id=lease_id, trust=proof.status, by=proof.attested_by)
        await save_proof(lease_id, proof, int(self.now()), self.chain_store, self.lease_cache)
