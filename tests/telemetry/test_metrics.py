"""What a scrape of the metrics returns."""

from __future__ import annotations

import aiohttp

from pandacea.telemetry.metrics import Metric, MetricsServer, render_metrics


def test_the_text_is_prometheus_exposition() -> None:
    """Help, type, labels escaped: a hostile endpoint name cannot forge a metric."""
    metrics = [
        Metric.single("pandacea_ready", "1 when leases may be believed", 1),
        Metric("pandacea_rpc_errors_total", "by class", "counter", {(("endpoint", 'a"\nb 1'),): 3.0}),
    ]
    assert render_metrics(metrics) == (
        "# HELP pandacea_ready 1 when leases may be believed\n"
        "# TYPE pandacea_ready gauge\n"
        "pandacea_ready 1\n"
        "# HELP pandacea_rpc_errors_total by class\n"
        "# TYPE pandacea_rpc_errors_total counter\n"
        'pandacea_rpc_errors_total{endpoint="a\\"\\nb 1"} 3\n'
    )


async def test_it_is_served_on_loopback() -> None:
    """GET /metrics answers on loopback."""
    server = MetricsServer(0, lambda: [Metric.single("pandacea_ready", "ready", 0)])
    await server.start()
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}/metrics") as answer:
            assert answer.status == 200
            assert "pandacea_ready 0\n" in await answer.text()
    finally:
        await server.stop()
