"""The HTTP connection guard: what a connection may cost before anybody knows whose it is.

aiohttp parses HTTP; this adds what it leaves open: a limit on connections in all and for each peer, a deadline and a size limit for the
head of every request, a deadline for peers that do not read, and problem+json for what is not HTTP.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

import structlog
from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong

from pandacea.api.peers import UNKNOWN, TrustedProxies, parse_address, peer_name
from pandacea.api.problems import INTERNAL_ERROR_DETAIL, MEDIA_TYPE, problem_body, problem_response
from pandacea.domain.limits import MIB
from pandacea_sdk.protocol.problems import PROBLEM_KINDS

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits before authentication. Sizes in bytes, times in seconds."""

    connections: int = 1024
    connections_per_peer: int = 128
    """Of one address (IPv6: one /64); behind a trusted proxy, requests in progress of one of its clients."""
    connections_per_spender: int = 64
    """Of one Spender, evicted only after idle connections of strangers when the limit on connections is reached."""
    requests_per_spender: int = 64
    """Of one Spender in progress at one time, over all connections and addresses."""
    head_bytes: int = 16 * 1024
    header_count: int = 64
    line_bytes: int = 8190
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    """Between two requests of one connection."""
    write_seconds: float = 60.0
    """A peer that has not read its answer for this long is disconnected."""
    body_bytes: int = 1 * MIB
    """Of a POST: 100 KB of code, which JSON escapes may make six times as long, and params."""
    upload_bytes: int = 64 * MIB
    """Of a PUT."""
    body_seconds: float = 20.0
    body_bytes_per_second: int = 64 * 1024
    """A body may take `body_seconds` plus its size at this rate."""
    bodies_bytes: int = 64 * MIB
    """POST bodies of Spenders in memory at one time: the bytes received so far."""
    bodies_per_spender: int = 8 * MIB
    """Of these, one Spender's."""
    stranger_bodies_bytes: int = 8 * MIB
    """The same for people without a lease, counted separately."""
    stranger_bodies_per_peer: int = 2 * MIB
    """Of these, one peer's."""


class GuardedTransport(Protocol):
    """What admission needs of a connection."""

    def close_if_overdue(self, now: float) -> None:
        """Close it if a deadline has passed; `now` by the loop's clock."""
        ...

    def evict(self) -> None:
        """Close it, idle as it is, and release its place at once."""
        ...


class ConnectionAdmission:
    """Admits connections within the limits: in all, and by peer; those of trusted proxies only in all, their clients are counted singly.

    When the limit is reached, the connection that has been idle for longest is evicted for a new one: first those on which no Spender ever
    signed a request, last those of Spenders and proxies. So idle connections, from however many addresses, keep nobody out.
    """

    def __init__(self, limits: HttpLimits, proxies: TrustedProxies | None = None) -> None:
        """Start with no connection."""
        self._limits = limits
        self.proxies = proxies or TrustedProxies()
        self._peers: Counter[str] = Counter()
        self._all: set[GuardedTransport] = set()
        self._idle_strangers: dict[GuardedTransport, None] = {}
        self._idle_known: dict[GuardedTransport, None] = {}
        self._known: dict[GuardedTransport, str] = {}
        self._spenders: Counter[str] = Counter()
        self.open = 0
        self.opened = 0

    def admit(self, peer: str, connection: GuardedTransport, *, proxied: bool = False) -> bool:
        """Admit a connection; False: the limit is reached and no connection is idle."""
        if not proxied and self._peers[peer] >= self._limits.connections_per_peer:
            return False
        if self.open >= self._limits.connections and not self._evict_one():
            return False
        self.open += 1
        self.opened += 1
        self._all.add(connection)
        if proxied:
            self._known[connection] = ""
        else:
            self._peers[peer] += 1
        self.mark_idle(connection)
        return True

    def release(self, peer: str, connection: GuardedTransport) -> None:
        """Release the place of a connection."""
        self.mark_busy(connection)
        self._all.discard(connection)
        self.open -= 1
        spender = self._known.pop(connection, None)
        if spender:
            _decrement(self._spenders, spender)
        if spender != "":
            _decrement(self._peers, peer)

    def mark_busy(self, connection: GuardedTransport) -> None:
        """Exempt a connection from eviction: a request came on it."""
        self._idle_strangers.pop(connection, None)
        self._idle_known.pop(connection, None)

    def mark_idle(self, connection: GuardedTransport) -> None:
        """Make a connection a candidate for eviction: it waits for its next request."""
        (self._idle_known if connection in self._known else self._idle_strangers)[connection] = None

    def assign_to_spender(self, spender: str, connection: GuardedTransport) -> None:
        """Count a connection as a Spender's, within their share: their signed request came on it."""
        if connection not in self._known and self._spenders[spender] < self._limits.connections_per_spender:
            self._known[connection] = spender
            self._spenders[spender] += 1

    def _evict_one(self) -> bool:
        victim = next(iter(self._idle_strangers), None) or next(iter(self._idle_known), None)
        if victim is None:
            return False
        victim.evict()
        return True

    async def close_overdue_forever(self) -> None:
        """Close connections whose deadline has passed. Runs until cancelled; a deadline is enforced at most 50 % or 1 s late."""
        limits = self._limits
        pause = min(1.0, min(limits.head_seconds, limits.idle_seconds, limits.write_seconds) / 2)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            for connection in list(self._all):
                connection.close_if_overdue(now)


def _decrement(counted: Counter[str], owner: str) -> None:
    counted[owner] -= 1
    if not counted[owner]:
        del counted[owner]


class _Phase(Enum):
    IDLE = auto()  # nothing of a request has come yet
    HEAD = auto()  # a head is coming in
    BUSY = auto()  # its request is handled; deadlines are the handler's
    CLOSED = auto()


class GuardedConnection(web.RequestHandler):
    """One HTTP connection. The middleware calls `begin_request` when a head was read, and `end_request` when its answer is ready."""

    __slots__ = ("_connections", "_due", "_entered", "_head", "_limits", "_paused_due", "_phase", "_tail", "peer", "proxied")

    def __init__(self, manager: web.Server, connections: ConnectionAdmission, limits: HttpLimits) -> None:
        """`manager`: the server of an `AppRunner`."""
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=limits.idle_seconds,
            access_log=_NO_ACCESS_LOG,
            max_line_size=limits.line_bytes,
            max_field_size=limits.line_bytes,
            max_headers=limits.header_count,
            lingering_time=2.0,
            # A limit on bytes must also limit what they decompress to.
            auto_decompress=False,
        )
        self._limits = limits
        self._connections = connections
        self._phase = _Phase.CLOSED
        # Deadlines by the loop's clock, enforced by `close_if_overdue`: a timer for each request would cost more than parsing it.
        self._due = math.inf
        self._paused_due = math.inf
        self._entered = False
        self.peer = UNKNOWN
        """The name under which the other end is counted: see `pandacea.api.peers`."""
        self.proxied = False
        """Whether a trusted proxy opened it, for clients of its own."""
        self._head = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for admission or refuse; a connection that sends nothing is closed after `head_seconds`."""
        assert isinstance(transport, asyncio.Transport)
        peername = transport.get_extra_info("peername")
        address = parse_address(str(peername[0])) if isinstance(peername, tuple) else None
        if address is not None:
            self.peer, self.proxied = peer_name(address), address in self._connections.proxies
        if not self._connections.admit(self.peer, self, proxied=self.proxied):
            transport.write(_raw_response("too-many-connections", "Too many connections; close some, or try again.", retry_after=5))
            transport.close()
            return
        self._entered = True
        self._phase = _Phase.IDLE
        super().connection_made(transport)
        self._arm(self._limits.head_seconds)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release the connection's place."""
        if self._phase is _Phase.CLOSED:
            return
        self._phase = _Phase.CLOSED
        self._leave()
        super().connection_lost(exc)

    def evict(self) -> None:
        """Close an idle connection and release its place at once."""
        self._leave()
        if self.transport is not None:
            self.transport.abort()

    def _leave(self) -> None:
        if self._entered:
            self._entered = False
            self._connections.release(self.peer, self)

    def data_received(self, data: bytes) -> None:
        """Count the bytes of a head while it comes in, then let aiohttp parse them."""
        if self._phase is _Phase.CLOSED:
            return
        if self._phase is _Phase.IDLE and data:
            self._phase = _Phase.HEAD
            self._head, self._tail = 0, b""
            self._arm(self._limits.head_seconds)
        if self._phase is _Phase.HEAD and self._head >= 0:
            self._measure(data)
            if self._head > self._limits.head_bytes:
                self._refuse(
                    "headers-too-large", f"Line and headers of a request may have {self._limits.head_bytes:,} bytes together."
                )
                return
        super().data_received(data)

    def pause_writing(self) -> None:
        """Start the deadline of a peer that does not read."""
        super().pause_writing()
        self._paused_due = asyncio.get_running_loop().time() + self._limits.write_seconds

    def resume_writing(self) -> None:
        """End that deadline: the peer reads again."""
        super().resume_writing()
        self._paused_due = math.inf

    def begin_request(self) -> None:
        """Suspend the deadlines: a request's head was read whole, and its handler sets its own."""
        self._due = math.inf
        if self._phase is not _Phase.CLOSED:
            self._phase = _Phase.BUSY
            self._connections.mark_busy(self)

    def end_request(self, body: StreamReader) -> None:
        """Start the deadline for the next request once the body of this one is read or dropped.

        An unread rest of a body must not count as the head of a next request: aiohttp reads and drops it for a moment, or closes.
        """
        body.on_eof(self._rest)

    def _rest(self) -> None:
        if self._phase is _Phase.BUSY and self._entered:
            self._phase = _Phase.IDLE
            self._connections.mark_idle(self)
            self._arm(self._limits.idle_seconds)

    def client_peer(self, forwarded_for: Sequence[str]) -> str:
        """Return the peer on whose behalf a proxy sent a request."""
        return self._connections.proxies.client_peer(self.peer, forwarded_for)

    def assign_to_spender(self, spender: str) -> None:
        """Count the connection as a Spender's: it is evicted after those of strangers."""
        self._connections.assign_to_spender(spender, self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # aiohttp calls it by this signature
    ) -> web.StreamResponse:
        """Answer what aiohttp could not parse, or an error that escaped the middleware, with problem+json; then close."""
        self.begin_request()
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun; it cannot be turned into an error")
        request_id = secrets.token_hex(8)
        if status < 500:
            # Strangers can cause these at will: no traceback, no line in the log.
            code = "headers-too-large" if isinstance(exc, LineTooLong) or "Too many" in str(exc) else "bad-request"
            response = problem_response(code, "This is not an HTTP/1.1 request that this server reads.", request_id)
        else:
            _log.error("request.error_escaped", request_id=request_id, reason=repr(exc), exc_info=exc)
            response = problem_response("internal-error", INTERNAL_ERROR_DETAIL, request_id)
        response.force_close()
        return response

    def _measure(self, data: bytes) -> None:
        """Count the bytes of a head up to the blank line; -1 from there on, when a body may follow."""
        seen = self._tail + data
        end = seen.find(b"\r\n\r\n")
        if end < 0:
            self._head += len(data)
            self._tail = seen[-3:]
        else:
            head = self._head - len(self._tail) + end + 4
            self._head = head if head > self._limits.head_bytes else -1

    def _arm(self, seconds: float) -> None:
        self._due = asyncio.get_running_loop().time() + seconds

    def close_if_overdue(self, now: float) -> None:
        """Close the connection if a deadline has passed; `now` by the loop's clock."""
        if now >= self._paused_due:
            if self.transport is not None:
                self.transport.abort()
        elif now >= self._due and self._paused_due == math.inf:  # while an answer goes out slowly, only its own deadline counts
            self._due = math.inf
            if self._phase is _Phase.HEAD:
                self._refuse("request-timeout", f"A request's line and headers must come within {self._limits.head_seconds:g} s.")
            else:
                self.force_close()

    def _refuse(self, code: str, detail: str) -> None:
        if self.transport is not None:
            self.transport.write(_raw_response(code, detail))
        self.force_close()


_NO_ACCESS_LOG: Final = logging.getLogger("pandacea.api.access")
_NO_ACCESS_LOG.disabled = True


def _raw_response(code: str, detail: str, retry_after: int | None = None) -> bytes:
    """Return the bytes of a response for a connection that never became a request."""
    request_id = secrets.token_hex(8)
    kind = PROBLEM_KINDS[code]
    body = json.dumps(problem_body(code, detail, request_id, kind)).encode()
    more = f"Retry-After: {retry_after}\r\n" if retry_after is not None else ""
    head = (
        f"HTTP/1.1 {kind.status} {kind.title}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n"
        f"Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nX-Request-Id: {request_id}\r\n"
        f"{more}Connection: close\r\n\r\n"
    )
    return head.encode() + body
