"""Metrics for a scrape: Prometheus text exposition 0.0.4, on loopback, apart from the API."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from pandacea.errors import BadConfig

LISTEN_HOST: Final = "127.0.0.1"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


_OWN_HOST: Final = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)

Labels = tuple[tuple[str, str], ...]
"""(name, value) pairs."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, its meaning with the unit, `gauge` or `counter`, and a value for each set of labels."""

    name: str
    help: str
    kind: str
    values: Mapping[Labels, float] = field(default_factory=dict)

    @classmethod
    def single(cls, name: str, meaning: str, value: float, kind: str = "gauge") -> Metric:
        """A metric without labels."""
        return cls(name, meaning, kind, {(): value})


def render_metrics(metrics: Iterable[Metric]) -> str:
    """The text of a scrape."""
    lines = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {_escape(metric.help)}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in metric.values.items():
            shown = ",".join(f'{name}="{_escape(text, quotes=True)}"' for name, text in labels)
            lines.append(f"{metric.name}{{{shown}}} {value:g}" if shown else f"{metric.name} {_number(value)}")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


class MetricsServer:
    """GET /metrics on loopback."""

    def __init__(self, port: int, collect: Callable[[], Iterable[Metric]]) -> None:
        """`port`: TCP, 0 takes a free one; `collect` must answer from memory."""
        self._port = port
        self._collect = collect
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
        return web.Response(body=render_metrics(self._collect()).encode(), headers={"Content-Type": CONTENT_TYPE})
