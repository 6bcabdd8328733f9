"""The outermost edge: what a connection may cost before anybody knows whose it is.

aiohttp parses HTTP; this adds what it leaves open: a number of connections in all and for each peer, a deadline and a size for the
head of every request, a deadline for readers that do not read, and problem+json for what is no HTTP at all.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import LineTooLong

from pandacea.api.edge_limits import ConnectionAdmission, HttpLimits
from pandacea.api.peers import UNKNOWN, parse_address, peer_name
from pandacea.api.problems import MEDIA_TYPE, problem_body, problem_response
from pandacea_sdk.protocol.problems import PROBLEM_KINDS


class _Phase(Enum):
    IDLE = auto()  # nothing of a request has come
    HEAD = auto()  # a head is coming in
    BUSY = auto()  # its request is handled; deadlines are the handler's
    CLOSED = auto()


class GuardedConnection(web.RequestHandler):
    """One connection. The middleware calls `begin` when a head was read, `end` when its answer is made."""

    __slots__ = ("_connections", "_due", "_edge", "_entered", "_head", "_paused_due", "_phase", "_tail", "peer", "proxied")

    def __init__(self, manager: web.Server, connections: ConnectionAdmission, edge: HttpLimits) -> None:
        """`manager`: the server of an `AppRunner`."""
        super().__init__(
            manager,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=edge.idle_seconds,
            access_log=_SILENT,
            max_line_size=edge.line_bytes,
            max_field_size=edge.line_bytes,
            max_headers=edge.header_count,
            lingering_time=2.0,
            # A limit on bytes must be a limit on what they become.
            auto_decompress=False,
        )
        self._edge = edge
        self._connections = connections
        self._phase = _Phase.CLOSED
        # Deadlines by the loop's clock, looked at by `sweep`: a timer for each request would cost more than the request's parsing.
        self._due = math.inf
        self._paused_due = math.inf
        self._entered = False
        self.peer = UNKNOWN
        """Whose connection it is: see `pandacea.api.peers`."""
        self.proxied = False
        """Whether a declared proxy made it, for clients of its own."""
        self._head = 0
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place or refuse; a connection that sends nothing is closed after `head_seconds`."""
        assert isinstance(transport, asyncio.Transport)
        peername = transport.get_extra_info("peername")
        address = parse_address(str(peername[0])) if isinstance(peername, tuple) else None
        if address is not None:
            self.peer, self.proxied = peer_name(address), address in self._connections.proxies
        if not self._connections.admit(self.peer, self, proxied=self.proxied):
            transport.write(_canned("too-many-connections", "Too many connections; close some, or try again.", retry_after=5))
            transport.close()
            return
        self._entered = True
        self._phase = _Phase.IDLE
        super().connection_made(transport)
        self._arm(self._edge.head_seconds)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        if self._phase is _Phase.CLOSED:
            return
        self._phase = _Phase.CLOSED
        self._leave()
        super().connection_lost(exc)

    def evict(self) -> None:
        """End an idle connection; its place is free at once."""
        self._leave()
        if self.transport is not None:
            self.transport.abort()

    def _leave(self) -> None:
        if self._entered:
            self._entered = False
            self._connections.release(self.peer, self)

    def data_received(self, data: bytes) -> None:
        """Watch the size of a head while it comes in, then let aiohttp parse."""
        if self._phase is _Phase.CLOSED:
            return
        if self._phase is _Phase.IDLE and data:
            self._phase = _Phase.HEAD
            self._head, self._tail = 0, b""
            self._arm(self._edge.head_seconds)
        if self._phase is _Phase.HEAD and self._head >= 0:
            self._measure(data)
            if self._head > self._edge.head_bytes:
                self._refuse(
                    "headers-too-large", f"Line and headers of a request may have {self._edge.head_bytes:,} bytes together."
                )
                return
        super().data_received(data)

    def pause_writing(self) -> None:
        """The peer does not read: give it `write_seconds`."""
        super().pause_writing()
        self._paused_due = asyncio.get_running_loop().time() + self._edge.write_seconds

    def resume_writing(self) -> None:
        """The peer reads again."""
        super().resume_writing()
        self._paused_due = math.inf

    def begin_request(self) -> None:
        """A request's head was read whole; from here on its handler sets the deadlines."""
        self._due = math.inf
        if self._phase is not _Phase.CLOSED:
            self._phase = _Phase.BUSY
            self._connections.mark_busy(self)

    def end_request(self, body: StreamReader) -> None:
        """Its answer is made: wait for the next request, not forever.

        What is left of a body that nobody wanted to read is no head of a next request: aiohttp reads and drops it for a moment, or closes.
        """
        body.on_eof(self._rest)

    def _rest(self) -> None:
        if self._phase is _Phase.BUSY and self._entered:
            self._phase = _Phase.IDLE
            self._connections.mark_idle(self)
            self._arm(self._edge.idle_seconds)

    def client_peer(self, forwarded_for: Sequence[str]) -> str:
        """The peer for whom a proxy's request asks."""
        return self._connections.proxies.client_peer(self.peer, forwarded_for)

    def assign_to_spender(self, spender: str) -> None:
        """A Spender's signed request came on it: when all places are taken, it gives way after those of strangers."""
        self._connections.assign_to_spender(spender, self)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # aiohttp's signature
    ) -> web.StreamResponse:
        """What aiohttp could not parse, or an error that escaped the middleware: problem+json, then close. See `RequestHandler`."""
        self.begin_request()
        if request.writer.output_size > 0:
            raise ConnectionError("the answer had begun; it cannot be turned into an error")
        request_id = secrets.token_hex(8)
        if status < 500:
            # Strangers can cause these at will: no traceback, no line in the log.
            code = "headers-too-large" if isinstance(exc, LineTooLong) or "Too many" in str(exc) else "bad-request"
            response = problem_response(code, "This is not an HTTP/1.1 request that this server reads.", request_id)
        else:
            logging.getLogger(__name__).error("an error escaped its handler: request %s", request_id, exc_info=exc)
            response = problem_response(
                "internal-error", "The node made an error; its operator can find the request id in the log.", request_id
            )
        response.force_close()
        return response

    def _measure(self, data: bytes) -> None:
        """Count head bytes up to the blank line; -1 from there on, when a body may follow."""
        seen = self._tail + data
        end = seen.find(b"\r\n\r\n")
        if end < 0:
            self._head += len(data)
            self._tail = seen[-3:]
        else:
            head = self._head - len(self._tail) + end + 4
            self._head = head if head > self._edge.head_bytes else -1

    def _arm(self, seconds: float) -> None:
        self._due = asyncio.get_running_loop().time() + seconds

    def close_if_overdue(self, now: float) -> None:
        """End the connection if a deadline has passed; `now` by the loop's clock."""
        if now >= self._paused_due:
            if self.transport is not None:
                self.transport.abort()
        elif now >= self._due and self._paused_due == math.inf:  # while an answer goes out slowly, its own deadline rules
            self._due = math.inf
            if self._phase is _Phase.HEAD:
                self._refuse("request-timeout", f"A request's line and headers must come within {self._edge.head_seconds:g} s.")
            else:
                self.force_close()

    def _refuse(self, code: str, detail: str) -> None:
        if self.transport is not None:
            self.transport.write(_canned(code, detail))
        self.force_close()


_SILENT: Final = logging.getLogger("pandacea.api.access")
_SILENT.disabled = True


def _canned(code: str, detail: str, retry_after: int | None = None) -> bytes:
    """A whole response for a connection that never became a request."""
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
