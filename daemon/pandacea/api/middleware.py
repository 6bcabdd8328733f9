"""Middleware for every request and response: form, limits, errors as problems, headers.

No body is read here: a route reads it after the signature of the head was verified, so that a stranger's body costs no memory.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import structlog
from aiohttp import HttpVersion10, HttpVersion11, web

from pandacea.api.connection_guard import GuardedConnection, HttpLimits
from pandacea.api.problems import INTERNAL_ERROR_DETAIL, error_response, problem_response
from pandacea.api.quotas import RequestQuotas, RequestUsage
from pandacea.errors import DaemonError
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.signing import BODY_METHODS, RequestHead, check_content_encoding
from pandacea_sdk.protocol.targets import split_target

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

LIMITS: Final = web.AppKey("limits", HttpLimits)

HEAD: Final = web.RequestKey("head", RequestHead)
USAGE: Final = web.RequestKey("usage", RequestUsage)
BODY: Final = web.RequestKey("body", bytes)
REQUEST_ID: Final = web.RequestKey("request_id", str)
SIGNED: Final = web.RequestKey("signed", bool)
"""Set once the request's own signature was verified."""

INSUFFICIENT_STORAGE: Final = 507
"""Status of a Spender's full quota: a Spender can cause it at will, so it is not logged."""

_log = structlog.get_logger(__name__)


class ServerState:
    """State of one server: whether it stops, and what the requests in progress hold."""

    def __init__(self, limits: HttpLimits) -> None:
        """Start with no request."""
        self.stopping = False
        self.quotas = RequestQuotas(limits)
        self.observe_request: Callable[[float], None] = lambda _seconds: None
        """Called with the seconds to the answer of a signed request; not of event streams and long-polls, which wait on purpose."""


STATE: Final = web.AppKey("state", ServerState)


@web.middleware
async def guard_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every error into a problem, and refuse what no route should get."""
    request_id = request[REQUEST_ID] = secrets.token_hex(8)
    connection = request.protocol
    assert isinstance(connection, GuardedConnection)
    connection.begin_request()
    began = time.perf_counter()
    try:
        response = await _handle_guarded(request, handler)
    except (ProtocolError, DaemonError, web.HTTPException) as error:
        _require_unanswered(request, error)
        response = error_response(error, request_id)
        if isinstance(error, DaemonError) and response.status >= 500 and response.status != INSUFFICIENT_STORAGE:
            _log.warning("request.not_served", request_id=request_id, code=error.code, reason=error.detail)
    except ConnectionError:
        raise  # the client is gone; aiohttp tidies up
    except Exception as error:  # noqa: BLE001  # whatever a route raised is logged whole, and nothing of it leaves
        _log.exception("request.failed", request_id=request_id, method=request.method, reason=repr(error))
        _require_unanswered(request, error)
        response = problem_response("internal-error", INTERNAL_ERROR_DETAIL, request_id)
    finally:
        connection.end_request(request.content)
    if request.get(SIGNED) and not response.prepared and "wait" not in request.query:
        request.app[STATE].observe_request(time.perf_counter() - began)
    return response


def _require_unanswered(request: web.Request, error: Exception) -> None:
    """Cut the connection if an answer has begun to stream: it cannot become an error any more, and must not be taken for whole.

    Raises:
        ConnectionError: bytes of an answer were sent.
    """
    if request.writer.output_size > 0:
        raise ConnectionResetError("the answer had begun") from error


async def _handle_guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    state, limits = request.app[STATE], request.app[LIMITS]
    if state.stopping:
        raise ProtocolError("shutting-down", "The node is stopping; try again in a minute.")
    if request.version not in {HttpVersion11, HttpVersion10}:
        raise ProtocolError("bad-request", "This server speaks HTTP/1.1.")
    head = head_of(request)
    split_target(head.target)
    request[HEAD] = head
    if request.method in BODY_METHODS:
        check_content_encoding(head)
        _check_length(request, limits.upload_bytes if request.method == "PUT" else limits.body_bytes)
    elif request.body_exists:
        raise ProtocolError("body-not-allowed", f"{request.method} takes no body here.")
    usage = request[USAGE] = state.quotas.begin_request(_peer(request, head))
    try:
        return await handler(request)
    finally:
        usage.release()


def _peer(request: web.Request, head: RequestHead) -> str:
    """Return the peer of the connection or, where that is a trusted proxy, the client it names."""
    connection = request.protocol
    assert isinstance(connection, GuardedConnection)
    return connection.client_peer(head.header_values("x-forwarded-for")) if connection.proxied else connection.peer


def head_of(request: web.Request) -> RequestHead:
    """Return the request's head as it was sent: raw target, raw header bytes."""
    lines = [(name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape")) for name, value in request.raw_headers]
    return RequestHead(request.method, request.raw_path, lines)


def require_json(request: web.Request) -> None:
    """Refuse a body whose Content-Type is not JSON in UTF-8.

    Raises:
        ProtocolError: `unsupported-media-type`.
    """
    if request.content_type != "application/json" or (request.charset or "utf-8").lower() != "utf-8":
        raise ProtocolError("unsupported-media-type", "Send Content-Type: application/json, in UTF-8.")


def assign_to_spender(request: web.Request, spender: str) -> None:
    """Count a request and its connection as a Spender's. Call it once the signature of the head was verified.

    Raises:
        ProtocolError: `rate-limited`: the Spender has as many requests in progress as it may.
    """
    request[USAGE].assign_to_spender(spender)
    connection = request.protocol
    assert isinstance(connection, GuardedConnection)
    connection.assign_to_spender(spender)


async def read_body(request: web.Request) -> bytes:
    """Read a POST body into memory, counted for the request's owner as it arrives. Repeated calls return the same bytes.

    Raises:
        ProtocolError: `body-too-large`, `request-timeout`, `too-many-connections` (its owner's quota is used up).
    """
    body = request.get(BODY)
    if body is None:
        usage, limit = request[USAGE], request.app[LIMITS].body_bytes
        if request.content.is_eof():  # it arrived with the head, as small bodies do
            body = request.content.read_nowait()
            usage.add_bytes(len(body))
            if len(body) > limit:
                raise _too_large(limit)
        else:
            pieces = bytearray()
            async for piece in body_chunks(request, limit):
                usage.add_bytes(len(piece))
                pieces += piece
            body = bytes(pieces)
        request[BODY] = body
    return body


async def body_chunks(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    """Yield a body as it arrives: at most `limit` bytes, and not more slowly than the limits allow.

    Raises:
        ProtocolError: `body-too-large`, `request-timeout`.
    """
    limits = request.app[LIMITS]
    loop = asyncio.get_running_loop()
    start, size = loop.time(), 0
    while True:
        allowed = limits.body_seconds + size / limits.body_bytes_per_second
        try:
            async with asyncio.timeout_at(start + allowed):
                chunk = await request.content.readany()
        except TimeoutError:
            raise _too_slow() from None
        if not chunk:
            return
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        yield chunk


def _check_length(request: web.Request, limit: int) -> None:
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> ProtocolError:
    return ProtocolError("body-too-large", f"The body may have {limit:,} bytes here.")


def _too_slow() -> ProtocolError:
    return ProtocolError("request-timeout", "The body came too slowly.")


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add headers to every response, streamed ones too: a result must not be cached or interpreted as a page."""
    headers = response.headers
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Server"] = "pandacea"
    request_id = request.get(REQUEST_ID)
    if request_id is not None:
        headers["X-Request-Id"] = request_id
    if response.status in {408, 413} or request.app[STATE].stopping:
        response.force_close()
