"""The HTTP server: an application to add routes to, a guarded listener, TLS that reloads, a graceful stop."""

from __future__ import annotations

import asyncio
import os
import resource
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from aiohttp import web

from pandacea.api.connection_guard import ConnectionAdmission, GuardedConnection, HttpLimits
from pandacea.api.middleware import LIMITS, STATE, ServerState, add_headers, guard_middleware
from pandacea.api.peers import TrustedProxies
from pandacea.errors import BadConfig
from pandacea.tasks import RestartedTask
from pandacea_sdk.protocol.loopback import is_loopback

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files; loaded again when one of them changes."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Listener:
    """Where and how to listen. `port` 0 takes any free one; `proxies` are the addresses or networks of proxies in front."""

    host: str = "127.0.0.1"
    port: int = 8080
    tls: Tls | None = None
    behind_proxy: bool = False
    proxies: tuple[str, ...] = ()
    grace_seconds: float = 20.0
    limits: HttpLimits = field(default_factory=HttpLimits)


def create_app(limits: HttpLimits | None = None) -> web.Application:
    """Create an application with the middleware and no routes; add them to its `router`."""
    edge = limits or HttpLimits()
    app = web.Application(middlewares=[guard_middleware], client_max_size=edge.body_bytes)
    app[LIMITS] = edge
    app[STATE] = ServerState(edge)
    app.on_response_prepare.append(add_headers)
    return app


class HttpServer:
    """Serves one application until stopped."""

    def __init__(self, app: web.Application, listener: Listener) -> None:
        """Check the address and load the certificate.

        Raises:
            BadConfig: a bind off loopback with neither TLS nor a declared proxy, or a certificate that cannot be loaded.
        """
        check_binding(listener)
        self._app = app
        self._listener = listener
        self._context = _tls_context(listener.tls) if listener.tls else None
        self._file_state = _file_state(listener.tls)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=listener.grace_seconds)
        self._server: asyncio.Server | None = None
        self.connections = ConnectionAdmission(listener.limits, TrustedProxies(listener.proxies))
        self._sweeper = RestartedTask("edge", self.connections.close_overdue_forever)

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        assert self._server is not None, "start the server first"
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Start to listen.

        Raises:
            BadConfig: the address cannot be bound; the message names it.
        """
        _allow_descriptors(self._listener.limits.connections + 512)
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None
        limits = self._listener.limits
        self._sweeper.start()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: GuardedConnection(manager, self.connections, limits),
                self._listener.host,
                self._listener.port,
                ssl=self._context,
                ssl_handshake_timeout=limits.head_seconds if self._context else None,
                backlog=min(limits.connections, 1024),
            )
        except OSError as error:
            await self._sweeper.stop()
            await self._runner.cleanup()
            raise _cannot_listen(self._listener, error) from error

    async def stop(self) -> None:
        """Accept no new connections or requests, let those in progress end within the grace period, then close them."""
        self._app[STATE].stopping = True
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()
        await self._sweeper.stop()
        if self._server is not None:
            await self._server.wait_closed()

    async def reload_tls_forever(self, every_seconds: float = 60.0) -> None:
        """Load certificate and key again whenever a file changed, until cancelled. A pair that cannot be used is logged, not loaded."""
        tls = self._listener.tls
        while tls is not None and self._context is not None:
            await asyncio.sleep(every_seconds)
            self.reload_tls_if_changed()

    def reload_tls_if_changed(self) -> bool:
        """Load certificate and key if they changed; True: new ones are in use."""
        tls = self._listener.tls
        if tls is None or self._context is None or (stamp := _file_state(tls)) == self._file_state:
            return False
        try:
            _tls_context(tls)  # tried in a context of its own: a half-written pair must not break the one in use
            self._context.load_cert_chain(tls.certificate, tls.key)
        except (BadConfig, OSError, ssl.SSLError) as error:
            _log.error("tls.not_reloaded", reason=str(error), meaning="the old certificate stays in use")
            return False
        self._file_state = stamp
        _log.info("tls.reloaded", certificate=str(tls.certificate))
        return True


def check_binding(listener: Listener) -> None:
    """Refuse to serve plain HTTP to a network.

    Raises:
        BadConfig: the host is not loopback, and there is neither TLS nor a declared proxy.
    """
    if listener.tls is None and not listener.behind_proxy and not is_loopback(listener.host):
        raise BadConfig(
            f"server.host is {listener.host}, which others can reach, without TLS: give server.tls_certificate and server.tls_key, "
            "or set server.behind_proxy: true when a proxy in front ends TLS, or bind 127.0.0.1."
        )


async def check_free(listener: Listener) -> None:
    """Bind the address for a moment, as `HttpServer.start` will, so that a taken address is found before work that takes minutes.

    Raises:
        BadConfig: it cannot be bound, or the certificate cannot be loaded.
    """
    if listener.tls is not None:
        _tls_context(listener.tls)
    try:
        bound = await asyncio.get_running_loop().create_server(asyncio.Protocol, listener.host, listener.port)
    except OSError as error:
        raise _cannot_listen(listener, error) from error
    bound.close()
    await bound.wait_closed()


def _cannot_listen(listener: Listener, error: OSError) -> BadConfig:
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
    return BadConfig(
        f"The server cannot listen on {listener.host}:{listener.port} ({reason}): choose another server.host or server.port."
    )


def _tls_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(tls.certificate, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise BadConfig(f"The TLS certificate {tls.certificate} and key {tls.key} cannot be used: {error}.") from error
    return context


def _file_state(tls: Tls | None) -> tuple[tuple[int, int], ...]:
    """Return a value that changes when a file does; a file that is missing for a moment counts as changed."""
    if tls is None:
        return ()
    stamps = []
    for path in (tls.certificate, tls.key):
        try:
            status = path.stat()
            stamps.append((status.st_mtime_ns, status.st_size))
        except OSError:
            stamps.append((0, 0))
    return tuple(stamps)


def _allow_descriptors(wanted: int) -> None:
    """Raise the soft limit on open files towards `wanted`: the common default of 1,024 is less than the connections allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
