"""A real server on loopback with the real guards, and a client that says exactly what it is told to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from pandacea.api.auth import AUTHENTICATOR, Authenticator, authenticate_anyone, authenticate_spender, authenticate_spender_head
from pandacea.api.connection_guard import HttpLimits
from pandacea.api.middleware import LIMITS, STATE, body_chunks, read_body
from pandacea.api.nonces import MemoryNonces
from pandacea.api.quotas import RequestQuotas
from pandacea.api.rate_limit import RateLimiter
from pandacea.api.server import HttpServer, Listener, create_app
from pandacea.domain.ids import Address
from pandacea.errors import Broken, Unavailable
from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.signing import SigningPolicy, sign_request

CHAIN, AUTHORITY = 31337, "earner.example:8080"
SPENDER, STRANGER = KeySigner("11" * 32), KeySigner("22" * 32)
NONCE = iter(f"{number:022d}" for number in range(10**6))


class RealTimeClock:
    def now(self) -> float:
        return time.time()


@dataclass
class FakeSpenders:
    """The spenders a test's node knows; counts how often it was asked."""

    addresses: set[str] = field(default_factory=lambda: {SPENDER.address})
    asked: int = 0

    def knows_spender(self, address: Address) -> bool:
        self.asked += 1
        return address in self.addresses


class FakeContractSignatures:
    """Contract wallets that accept one signature."""

    def __init__(self) -> None:
        self.accepted: set[bytes] = set()
        self.asked = 0

    async def accepts(self, address: Address, digest: bytes, signature: bytes, peer: str) -> bool:
        self.asked += 1
        return signature in self.accepted


@dataclass
class GuardedNode:
    """A running server and what stands behind its authenticator."""

    server: HttpServer
    known: FakeSpenders
    nonces: MemoryNonces
    wallets: FakeContractSignatures
    quotas: RequestQuotas
    handled: list[str] = field(default_factory=list)
    observed: list[float] = field(default_factory=list)
    """Seconds to the answer, of each signed request."""

    @property
    def port(self) -> int:
        return self.server.port

    def signed_request(self, method: str = "POST", target: str = "/signed", body: bytes | None = b"{}", **changes: Any) -> bytes:
        """The bytes of a signed request."""
        headers: dict[str, str] = dict(changes.pop("headers", {}))
        parts: dict[str, Any] = {
            "method": method,
            "authority": AUTHORITY,
            "target": target,
            "chain_id": CHAIN,
            "created": int(time.time()),
            "nonce": next(NONCE),
            "headers": headers,
            "body": body,
        } | changes
        host = parts["authority"]
        added = sign_request(parts.pop("signer", SPENDER), **parts)
        return raw_request(method, target, headers | added, body, host=host)


def raw_request(method: str, target: str, headers: dict[str, str], body: bytes | None, host: str = "127.0.0.1") -> bytes:
    """Write an HTTP/1.1 request as bytes."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (body or b"")


@dataclass
class HttpAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        members: dict[str, Any] = json.loads(self.body)
        return members

    @property
    def code(self) -> str:
        """The problem's code, once its form was looked at."""
        problem = self.json
        assert self.headers["content-type"].startswith("application/problem+json")
        assert problem["status"] == self.status
        assert problem["request_id"] == self.headers["x-request-id"]
        assert problem["title"]
        assert problem["detail"]
        return str(problem["code"])


async def read_answer(reader: asyncio.StreamReader, method: str = "GET") -> HttpAnswer:
    """Read one response from the connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    length = int(headers.get("content-length", 0)) if method != "HEAD" else 0
    return HttpAnswer(int(head[0].split()[1]), headers, await reader.readexactly(length))


async def send_raw(port: int, raw: bytes, seconds: float = 10.0, local_address: str = "127.0.0.1") -> HttpAnswer:
    """Send bytes on a new connection, from an address of loopback's, and read one answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(local_address, 0))
    try:
        async with asyncio.timeout(seconds):
            writer.write(raw)
            await writer.drain()
            return await read_answer(reader, raw.split(b" ", 1)[0].decode("latin-1"))
    finally:
        writer.close()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for something another task does; fails when it does not come."""
    async with asyncio.timeout(seconds):
        while not condition():  # what is waited for lives in the server, which has no event for it
            await asyncio.sleep(0.01)


StartNode = Callable[..., Awaitable[GuardedNode]]


@pytest.fixture
async def start_node() -> AsyncIterator[StartNode]:
    """Start nodes with given limits; all are stopped at the end."""
    started: list[HttpServer] = []

    async def start(limits: HttpLimits | None = None, requests_since: int = 0, **listener: Any) -> GuardedNode:
        edge = limits or HttpLimits()
        app = create_app(edge)
        known, wallets = FakeSpenders(), FakeContractSignatures()
        nonces = MemoryNonces(time.time, 30)
        handled: list[str] = []
        app[AUTHENTICATOR] = Authenticator(
            SigningPolicy(CHAIN, frozenset({AUTHORITY})),
            RealTimeClock(),
            known,
            nonces,
            stranger_nonces=MemoryNonces(time.time, 30),
            stranger_rate=RateLimiter(1, 3, time.monotonic),
            peer_rate=RateLimiter(1, 16, time.monotonic),
            wallets=wallets,
            requests_since=requests_since,
        )
        _add_routes(app, handled)
        server = HttpServer(app, Listener(port=0, limits=edge, grace_seconds=listener.pop("grace_seconds", 5), **listener))
        await server.start()
        started.append(server)
        node = GuardedNode(server, known, nonces, wallets, app[STATE].quotas, handled)
        app[STATE].observe_request = node.observed.append
        return node

    def _add_routes(app: web.Application, handled: list[str]) -> None:
        async def plain(request: web.Request) -> web.Response:
            body = await read_body(request)
            handled.append(request.path)
            return web.json_response({"body": body.decode("latin-1")})

        async def whoami(request: web.Request) -> web.Response:
            caller = await authenticate_spender(request)
            handled.append(request.path)
            return web.json_response({"address": caller.address, "request_hash": caller.request_hash})

        async def anyone(request: web.Request) -> web.Response:
            return web.json_response({"address": (await authenticate_anyone(request)).address})

        async def upload(request: web.Request) -> web.Response:
            await authenticate_spender_head(request)
            size = 0
            async for chunk in body_chunks(request, request.app[LIMITS].upload_bytes):
                size += len(chunk)
            return web.json_response({"size": size})

        async def breaks(request: web.Request) -> web.Response:
            raise {"unavailable": Unavailable("not now", retry_after=7), "broken": Broken("/secret/path is gone")}.get(
                request.query.get("how", ""), RuntimeError("secret")
            )

        async def stream(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"x" * 100)
            raise RuntimeError("in the middle")

        async def big(request: web.Request) -> web.StreamResponse:
            return web.Response(body=b"x" * 50_000_000)

        async def slow(request: web.Request) -> web.Response:
            handled.append("slow")
            await asyncio.sleep(float(request.query["seconds"]))
            return web.json_response({})

        app.router.add_route("*", "/plain", plain)
        app.router.add_route("*", "/signed", whoami)
        app.router.add_post("/anyone", anyone)
        app.router.add_put("/upload", upload)
        app.router.add_get("/breaks", breaks)
        app.router.add_get("/stream", stream)
        app.router.add_get("/big", big)
        app.router.add_get("/slow", slow)

    try:
        yield start
    finally:
        for server in started:
            await server.stop()
