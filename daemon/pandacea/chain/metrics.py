"""What the follower shows of itself: enough to see when it should not be believed."""

from __future__ import annotations

from dataclasses import dataclass

from pandacea.chain.approvals.queue import ProofQueue
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.source import ChainSource


@dataclass(frozen=True, slots=True)
class ChainMetrics:
    """One snapshot. Blocks by number, -1 where none is known; lag in blocks and seconds."""

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
    lagging_heads: int
    failovers: int
    contradictions: int
    rpc_calls: dict[str, int]
    """By endpoint (redacted)."""
    rpc_errors: dict[tuple[str, str], int]
    """By endpoint (redacted) and class."""
    not_ready_reason: str | None
    """Why the node does not believe itself now; None: it does."""


def collect_metrics(
    book: InMemoryLeaseCache, endpoints: EndpointPool, source: ChainSource | None, proving: ProofQueue | None, now: float
) -> ChainMetrics:
    """Gather the figures; O(endpoints)."""
    view = book.chain_view
    tip = None if view is None else view.tip
    counters = None if source is None else source.counters
    return ChainMetrics(
        head=book.known_head,
        processed=-1 if tip is None else tip.number,
        safe=-1 if view is None else view.safe,
        finalized=-1 if view is None else view.finalized,
        settled=-1 if view is None else view.base.number,
        held_blocks=0 if view is None else len(view.blocks),
        lag_blocks=0 if tip is None else max(0, book.known_head - tip.number),
        lag_seconds=0.0 if tip is None else max(0.0, now - tip.timestamp),
        leases=len(book),
        unproven=0 if proving is None else len(proving.waiting),
        reorgs=0 if counters is None else counters.reorgs,
        deepest_reorg=0 if counters is None else counters.deepest_reorg,
        odd_logs=0 if counters is None else counters.odd_logs,
        healed_logs=0 if counters is None else counters.healed_logs,
        lagging_heads=0 if counters is None else counters.lagging_heads,
        failovers=endpoints.failovers,
        contradictions=len(book.contradictions),
        rpc_calls={endpoint.name: endpoint.calls for endpoint in endpoints.members},
        rpc_errors={
            (endpoint.name, kind.value): count for endpoint in endpoints.members for kind, count in endpoint.fault_counts.items()
        },
        not_ready_reason=book.chain_status().not_ready_reason,
    )
