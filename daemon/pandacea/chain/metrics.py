"""The follower's figures: enough to see when it is not ready, and why."""

from __future__ import annotations

from dataclasses import dataclass

from pandacea.chain.approvals.queue import ProofQueue
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.source import ChainSource


@dataclass(frozen=True, slots=True)
class ChainMetrics:
    """One snapshot. Blocks by number, -1 where unknown; lag in blocks and in seconds."""

    head: int
    processed: int
    safe: int
    finalized: int
    settled: int
    held_blocks: int
    lag_blocks: int
    lag_seconds: float
    leases: int
    unproven: int
    reorgs: int
    deepest_reorg: int
    odd_logs: int
    healed_logs: int
    rebuilt_leases: int
    lagging_heads: int
    failovers: int
    contradictions: int
    rpc_calls: dict[str, int]
    """By endpoint name (redacted URL)."""
    rpc_errors: dict[tuple[str, str], int]
    """By endpoint name (redacted URL) and kind."""
    not_ready_reason: str | None
    """Why the node is not ready; None: it is."""


def collect_metrics(
    lease_cache: InMemoryLeaseCache, endpoints: EndpointPool, source: ChainSource | None, proof_queue: ProofQueue | None, now: float
) -> ChainMetrics:
    """Collect the figures, in O(endpoints)."""
    view = lease_cache.chain_view
    tip = None if view is None else view.tip
    counters = None if source is None else source.counters
    return ChainMetrics(
        head=lease_cache.known_head,
        processed=-1 if tip is None else tip.number,
        safe=-1 if view is None else view.safe,
        finalized=-1 if view is None else view.finalized,
        settled=-1 if view is None else view.base.number,
        held_blocks=0 if view is None else len(view.blocks),
        lag_blocks=0 if tip is None else max(0, lease_cache.known_head - tip.number),
        lag_seconds=0.0 if tip is None else max(0.0, now - tip.timestamp),
        leases=len(lease_cache),
        unproven=0 if proof_queue is None else len(proof_queue.waiting),
        reorgs=0 if counters is None else counters.reorgs,
        deepest_reorg=0 if counters is None else counters.deepest_reorg,
        odd_logs=0 if counters is None else counters.odd_logs,
        healed_logs=0 if counters is None else counters.healed_logs,
        rebuilt_leases=0 if counters is None else counters.rebuilt_leases,
        lagging_heads=0 if counters is None else counters.lagging_heads,
        failovers=endpoints.failovers,
        contradictions=len(lease_cache.contradictions),
        rpc_calls={endpoint.name: endpoint.calls for endpoint in endpoints.members},
        rpc_errors={
            (endpoint.name, kind.value): count for endpoint in endpoints.members for kind, count in endpoint.fault_counts.items()
        },
        not_ready_reason=lease_cache.chain_status().not_ready_reason,
    )
