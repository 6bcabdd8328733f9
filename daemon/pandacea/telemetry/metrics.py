"""The node's metrics for Prometheus: a registry of each node's own, scraped on loopback, apart from the API."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pandacea.errors import BadConfig
from pandacea.flows.ports import JobPhase

LISTEN_HOST: Final = "127.0.0.1"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

QUANTILES: Final = (0.5, 0.99)
REQUEST_BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
"""Upper bounds in seconds."""
LAG_BUCKETS: Final = (0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 3600)
"""Upper bounds in seconds."""
JOB_BUCKETS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 300, 600, 1800, 3600, 14_400, 86_400, 604_800)
"""Upper bounds in seconds."""

_OWN_HOST: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


class LatencyMetric(Collector):
    """A histogram of seconds, and beside it its median and 99th percentile as gauges, so that one scrape shows both.

    The quantiles are those of everything since the start, interpolated within a bucket; a monitoring system computes those of a period
    from the buckets.
    """

    def __init__(self, name: str, documentation: str, buckets: Sequence[float], labels: Sequence[str] = ()) -> None:
        """`name` ends with the unit, `_seconds`."""
        self._name = name
        self._labels = tuple(labels)
        self._histogram = Histogram(name, documentation, self._labels, buckets=buckets, registry=None)

    def add_series(self, *values: str) -> None:
        """Show a set of label values from the start, before anything was observed."""
        self._histogram.labels(*values)

    def observe(self, seconds: float, *values: str) -> None:
        """Count one duration in seconds; one below zero (the clock was set back) counts as zero."""
        series = self._histogram.labels(*values) if values else self._histogram
        series.observe(max(0.0, seconds))

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram, then the quantiles."""
        for family in self._histogram.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
            yield self._collect_quantiles(family)

    def _collect_quantiles(self, family: Metric) -> Metric:
        series: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                values = tuple(sample.labels[label] for label in self._labels)
                series.setdefault(values, []).append((float(sample.labels["le"]), sample.value))
        documentation = f"{family.documentation}, estimated quantiles since the start"
        gauge = GaugeMetricFamily(f"{self._name}_quantile", documentation, labels=[*self._labels, "quantile"])
        for values, buckets in series.items():
            if buckets[-1][1]:
                for quantile in QUANTILES:
                    gauge.add_metric([*values, f"{quantile:g}"], estimate_quantile(quantile, buckets))
        return gauge


def estimate_quantile(quantile: float, buckets: Sequence[tuple[float, float]]) -> float:
    """Interpolate a quantile as PromQL's `histogram_quantile` does; above the largest bound it is that bound.

    Args:
        quantile: between 0 and 1.
        buckets: (upper bound, number of observations up to it), ascending, the last bound infinite, the last number not zero.
    """
    rank = quantile * buckets[-1][1]
    below, count_below = 0.0, 0.0
    for bound, count in buckets[:-1]:
        if count >= rank:
            return below + (bound - below) * (rank - count_below) / (count - count_below)
        below, count_below = bound, count
    return below


class NodeMetrics:
    """Everything one node shows to a scrape; the module-wide registry of prometheus-client stays empty."""

    def __init__(self) -> None:
        """Register the latencies; `add_source` adds what is asked for at each scrape."""
        self.registry = CollectorRegistry(auto_describe=False)
        self._jobs = LatencyMetric("pandacea_job_seconds", "Time of a computation in a phase", JOB_BUCKETS, ["phase"])
        self._lag = LatencyMetric(
            "pandacea_chain_follow_seconds", "Time from a block's timestamp to its leases counting", LAG_BUCKETS
        )
        self._requests = LatencyMetric(
            "pandacea_signed_request_seconds", "Time from a signed request's head to its answer", REQUEST_BUCKETS
        )
        for phase in JobPhase:
            self._jobs.add_series(phase)
        for latency in (self._jobs, self._lag, self._requests):
            self.registry.register(latency)

    def add_source(self, collect: Callable[[], Iterable[Metric]]) -> None:
        """Add metrics that are read at each scrape; `collect` must answer from memory."""
        self.registry.register(_Source(collect))

    def observe_job(self, phase: JobPhase, seconds: float) -> None:
        """Count how long a computation was in a phase."""
        self._jobs.observe(seconds, phase)

    def observe_lag(self, seconds: float) -> None:
        """Count how old a block was when the leases of it counted."""
        self._lag.observe(seconds)

    def observe_request(self, seconds: float) -> None:
        """Count how long the answer to a request with a valid signature took."""
        self._requests.observe(seconds)

    def render(self) -> bytes:
        """Render the text of a scrape."""
        return generate_latest(self.registry)


class _Source(Collector):
    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        return self._collect()


class MetricsServer:
    """Serves GET /metrics on loopback."""

    def __init__(self, port: int, metrics: NodeMetrics) -> None:
        """`port`: TCP, 0 takes a free one."""
        self._port = port
        self._metrics = metrics
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        assert self._runner is not None, "start the server first"
        return int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Listen.

        Raises:
            BadConfig: the port is taken.
        """
        app = web.Application()
        app.router.add_get("/metrics", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, LISTEN_HOST, self._port).start()
        except OSError as problem:
            await self.stop()
            raise BadConfig(f"telemetry.metrics_port {self._port} cannot be listened on: {problem.strerror}.") from problem

    async def stop(self) -> None:
        """Stop serving the metrics."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        if not _OWN_HOST.fullmatch(request.headers.get("Host", "")):
            # A page in the operator's browser whose name was pointed here (DNS rebinding) sends its own name.
            return web.Response(
                status=421, text="This server answers to localhost and 127.0.0.1 alone: name one of them in the URL.\n"
            )
        return web.Response(body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE})
