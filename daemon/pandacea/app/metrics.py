"""Collects the metrics of a scrape: the follower's view of the chain, RPC calls and errors, the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from pandacea.chain.follower import Follower
from pandacea.flows.outbox import Backlog
from pandacea.flows.settlement.report import SettlementReport

_CHAIN: Final = {
    "head": ("pandacea_chain_head_block", "Highest block number any endpoint has told", "gauge"),
    "processed": ("pandacea_chain_processed_block", "Last block read into the lease cache", "gauge"),
    "safe": ("pandacea_chain_safe_block", "The chain's safe block", "gauge"),
    "finalized": ("pandacea_chain_finalized_block", "The chain's finalized block", "gauge"),
    "held_blocks": ("pandacea_chain_held_blocks", "Unfinalized blocks held by hash", "gauge"),
    "lag_blocks": ("pandacea_chain_lag_blocks", "Blocks between head and last processed", "gauge"),
    "lag_seconds": ("pandacea_chain_lag_seconds", "Age of the last processed block in seconds", "gauge"),
    "leases": ("pandacea_leases", "Approved leases in memory", "gauge"),
    "unproven": ("pandacea_leases_unproven", "Leases whose approval waits for its proof", "gauge"),
    "reorgs": ("pandacea_chain_reorgs_total", "Reorganisations seen", "counter"),
    "deepest_reorg": ("pandacea_chain_deepest_reorg_blocks", "Deepest reorganisation seen", "gauge"),
    "odd_logs": ("pandacea_chain_odd_logs_total", "Logs of the contract that could not be read", "counter"),
    "healed_logs": ("pandacea_chain_healed_logs_total", "Logs an endpoint had left out, found by the second pass", "counter"),
    "rebuilt_leases": ("pandacea_chain_rebuilt_leases_total", "Leases that gained an event by a later reading", "counter"),
    "failovers": ("pandacea_rpc_failovers_total", "Times another endpoint was followed", "counter"),
    "contradictions": ("pandacea_chain_contradictions", "Endpoints that contradict what was final", "gauge"),
}


def collect_metrics(
    follower: Follower, settlement: SettlementReport, backlogs: Sequence[Backlog], state_dir: Path
) -> Iterator[Metric]:
    """Yield what is read at each scrape, from memory."""
    chain = follower.collect_metrics()
    yield GaugeMetricFamily("pandacea_ready", "1 when leases may be believed", value=0 if chain.not_ready_reason else 1)
    for name, (metric, meaning, kind) in _CHAIN.items():
        family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
        yield family(metric, meaning, value=getattr(chain, name))
    calls = CounterMetricFamily("pandacea_rpc_calls_total", "RPC calls by endpoint", labels=["endpoint"])
    for endpoint, count in chain.rpc_calls.items():
        calls.add_metric([endpoint], count)
    yield calls
    errors = CounterMetricFamily("pandacea_rpc_errors_total", "RPC errors by endpoint and class", labels=["endpoint", "class"])
    for (endpoint, kind), count in chain.rpc_errors.items():
        errors.add_metric([endpoint, kind], count)
    yield errors
    waiting = "Delivered results whose commitment is not final"
    yield GaugeMetricFamily("pandacea_settlement_waiting", waiting, value=settlement.waiting)
    oldest = "How long the oldest of them has waited, in seconds"
    yield GaugeMetricFamily("pandacea_settlement_oldest_seconds", oldest, value=settlement.oldest_seconds)
    yield from collect_backlogs(backlogs)
    free = shutil.disk_usage(state_dir).free
    yield GaugeMetricFamily("pandacea_disk_free_bytes", "Free bytes where results are kept", value=free)


def collect_backlogs(backlogs: Sequence[Backlog]) -> Iterator[Metric]:
    """Yield how many events wait for each listener, since when, and how many were dropped."""
    waiting = GaugeMetricFamily("pandacea_messages_waiting", "Events that wait for a listener", labels=["channel"])
    oldest = GaugeMetricFamily("pandacea_messages_oldest_seconds", "How long the oldest has waited, in seconds", labels=["channel"])
    dropped = CounterMetricFamily("pandacea_messages_dropped_total", "Events dropped untold since the start", labels=["channel"])
    for one in backlogs:
        waiting.add_metric([one.channel.value], one.waiting)
        oldest.add_metric([one.channel.value], one.oldest_seconds)
        dropped.add_metric([one.channel.value], one.dropped)
    yield from (waiting, oldest, dropped)
