"""What a scrape of the metrics returns."""

from __future__ import annotations

import aiohttp
import pytest
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from pandacea.app.metrics import collect_backlogs
from pandacea.flows.outbox import Backlog
from pandacea.flows.ports import JobPhase
from pandacea.flows.unit_of_work import Channel
from pandacea.telemetry.metrics import MetricsServer, NodeMetrics


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Name and label values (sorted by label) -> value."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_text_is_prometheus_exposition() -> None:
    """Help, type, labels escaped: a hostile endpoint name cannot forge a metric."""
    metrics = NodeMetrics()
    errors = CounterMetricFamily("pandacea_rpc_errors_total", "by class", labels=["endpoint"])
    errors.add_metric(['a"\nb 1'], 3.0)
    metrics.add_source(lambda: [GaugeMetricFamily("pandacea_ready", "1 when leases may be believed", value=1), errors])
    assert (
        metrics.render()
        .decode()
        .endswith(
            "# HELP pandacea_ready 1 when leases may be believed\n"
            "# TYPE pandacea_ready gauge\n"
            "pandacea_ready 1.0\n"
            "# HELP pandacea_rpc_errors_total by class\n"
            "# TYPE pandacea_rpc_errors_total counter\n"
            'pandacea_rpc_errors_total{endpoint="a\\"\\nb 1"} 3.0\n'
        )
    )


def test_what_waits_for_each_listener_is_shown() -> None:
    """Depth, age and losses, by channel: an operator can alert on a broker that is away."""
    metrics = NodeMetrics()
    backlogs = [Backlog(Channel.MQTT, waiting=3, oldest_seconds=60.0, dropped=2), Backlog(Channel.WEBHOOK)]
    metrics.add_source(lambda: collect_backlogs(backlogs))
    read = samples(metrics.render().decode())
    for channel, figures in (("mqtt", (3, 60, 2)), ("webhook", (0, 0, 0))):
        names = ("waiting", "oldest_seconds", "dropped_total")
        assert tuple(read[f"pandacea_messages_{name}", channel] for name in names) == figures


async def test_it_is_served_on_loopback() -> None:
    """GET /metrics answers on loopback."""
    metrics = NodeMetrics()
    metrics.add_source(lambda: [GaugeMetricFamily("pandacea_ready", "ready", value=0)])
    server = MetricsServer(0, metrics)
    await server.start()
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}/metrics") as answer:
            assert answer.status == 200
            assert "pandacea_ready 0.0\n" in await answer.text()
    finally:
        await server.stop()


def test_one_scrape_shows_the_median_and_the_99th_percentile() -> None:
    """Of each phase of a job, of the follower and of signed requests; what was not observed yet has neither."""
    metrics = NodeMetrics()
    for n in range(1, 101):
        metrics.observe_job(JobPhase.RUNNING, n / 10)
        metrics.observe_lag(n / 100)
        metrics.observe_request(n / 1000)
    found = samples(metrics.render().decode())
    assert found["pandacea_job_seconds_count", "running"] == 100
    assert found["pandacea_job_seconds_count", "waiting"] == found["pandacea_job_seconds_count", "finishing"] == 0
    for name, middle, last in (
        (("pandacea_job_seconds_quantile", "running"), 5.0, 9.9),
        (("pandacea_chain_follow_seconds_quantile",), 0.5, 0.99),
        (("pandacea_signed_request_seconds_quantile",), 0.05, 0.099),
    ):
        assert found[(*name, "0.5")] == pytest.approx(middle, rel=0.02)
        assert found[(*name, "0.99")] == pytest.approx(last, rel=0.02)
    assert ("pandacea_job_seconds_quantile", "waiting", "0.5") not in found


def test_a_clock_that_was_set_back_and_a_run_of_weeks_are_counted() -> None:
    """At zero, and at the largest bound."""
    metrics = NodeMetrics()
    metrics.observe_job(JobPhase.FINISHING, -3.0)
    metrics.observe_job(JobPhase.WAITING, 1e9)
    found = samples(metrics.render().decode())
    assert found["pandacea_job_seconds_sum", "finishing"] == 0
    assert found["pandacea_job_seconds_quantile", "waiting", "0.99"] == 604_800


def test_each_node_has_a_registry_of_its_own() -> None:
    """Two nodes in one process do not add up, and nothing is registered for the whole process."""
    one, other = NodeMetrics(), NodeMetrics()
    one.observe_request(0.1)
    assert samples(one.render().decode())["pandacea_signed_request_seconds_count",] == 1
    assert samples(other.render().decode())["pandacea_signed_request_seconds_count",] == 0
    assert REGISTRY.get_sample_value("pandacea_signed_request_seconds_count") is None
