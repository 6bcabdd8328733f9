"""A web page whose name is made to point to 127.0.0.1 reads the node's metrics through the operator's browser."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.core import GaugeMetricFamily

from pandacea.telemetry.metrics import MetricsServer, NodeMetrics


@pytest.fixture
async def url() -> AsyncIterator[str]:
    metrics = NodeMetrics()
    metrics.add_source(lambda: [GaugeMetricFamily("pandacea_ready", "ready", value=0)])
    server = MetricsServer(0, metrics)
    await server.start()
    yield f"http://127.0.0.1:{server.port}/metrics"
    await server.stop()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9100", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1"]
)
async def test_another_name_reads_nothing(url: str, host: str) -> None:
    """The browser sends the page's own name as Host: that is no name of this server."""
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Host": host}) as answer:
        assert answer.status == 421
        assert "pandacea_ready" not in await answer.text()


@pytest.mark.parametrize("host", ["localhost", "localhost:9100", "127.0.0.1:9100", "[::1]:9100", "LOCALHOST"])
async def test_its_own_names_read_it(url: str, host: str) -> None:
    """Scrapers on the machine, whatever port a forward gave them."""
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Host": host}) as answer:
        assert answer.status == 200
        assert "pandacea_ready 0" in await answer.text()
