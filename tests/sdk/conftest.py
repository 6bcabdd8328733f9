"""A node's HTTP side as the SDK sees it: a real aiohttp server on loopback that verifies signatures and signs receipts, or lies."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from pandacea_sdk.protocol.execute_request import ExecuteRequest, parse_execute_request
from pandacea_sdk.protocol.hashing import KeySigner, sha256_hex
from pandacea_sdk.protocol.manifest import Digest, Manifest, ManifestInput, SandboxRecord, hash_manifest
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.receipt import Receipt, derive_computation_id
from pandacea_sdk.protocol.responses import output_members
from pandacea_sdk.protocol.signing import RequestHead, SignedRequest, SigningPolicy, parse_signed_request

CHAIN, CONTRACT, VERSION = 31337, "0x" + "cc" * 20, "0x" + "3c" * 32
LEASE = "0x" + "1a" * 32
SPENDER, EARNER = KeySigner("11" * 32), KeySigner("44" * 32)
WEIGHTS = b"\x80\x02weights"
TOKEN = "t" * 43

Hook = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse | dict[str, Any] | None]]


@dataclass
class FakeNode:
    """Answers as a node does; `hook` may change or replace any answer."""

    port: int = 0
    hook: Hook | None = None
    asynchronous: bool = False
    polls_until_ended: int = 2
    requests: list[str] = field(default_factory=list)
    nonces: set[str] = field(default_factory=set)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    by_key: dict[str, str] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    polls: int = 0
    pieces: list[bytes] = field(default_factory=list)
    """What each connection for an artifact sends before it breaks, in turn; afterwards the rest is sent."""
    streams: list[bytes] = field(default_factory=list)
    """What each connection for events sends before it ends, in turn."""
    seen_headers: list[dict[str, str]] = field(default_factory=list)
    """Of requests for artifacts and events."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def verify_request(self, request: web.Request) -> SignedRequest:
        """Verify as a node does."""
        lines = [(name.decode().lower(), value.decode()) for name, value in request.raw_headers]
        policy = SigningPolicy(CHAIN, frozenset({f"127.0.0.1:{self.port}"}))
        signed = parse_signed_request(RequestHead(request.method, request.raw_path, lines), policy, time.time())
        signed.check_body(await request.read())
        assert signed.is_signed_by_address()
        assert signed.nonce not in self.nonces
        self.nonces.add(signed.nonce)
        return signed

    def run_computation(self, request: ExecuteRequest, signed: SignedRequest) -> dict[str, Any]:
        """The honest answer to a request."""
        lease = request.lease_id or LEASE
        made = Manifest(
            chain_id=CHAIN,
            contract=CONTRACT,
            lease_id=lease,
            computation_id=derive_computation_id(CHAIN, CONTRACT, lease, signed.request_hash),
            request_hash=signed.request_hash,
            spender=signed.address,
            earner=EARNER.address,
            index=1,
            max_computations=1,
            product_version=VERSION,
            code_sha256=request.code_sha256(),
            params_sha256=sha256_hex(request.params_bytes()),
            uploads=request.uploads,
            inputs=[ManifestInput(item.asset_id, item.variable_name, "5d" * 32) for item in request.inputs],
            sandbox=SandboxRecord("docker", "sha256:" + "6e" * 32, "7f" * 32, {"cpus": 1.0}, 7, 1),
            node_version="0.1.0",
            code_policy="any-code",
            exit_status=0,
            failure=None,
            error_type=None,
            truncated=False,
            output=Digest(sha256_hex(b"done\n"), 5),
            artifacts={"model_weights.pth": Digest(sha256_hex(WEIGHTS), len(WEIGHTS))},
            retry=0,
            audit_head=None,
            started_at=1.0,
            finished_at=2.0,
            blinding=bytes(32),
        ).to_json()
        return sign_answer(
            made, output_members(b"done\n") | {"artifacts": {"model_weights.pth": base64.b64encode(WEIGHTS).decode()}}
        )


def sign_answer(manifest: dict[str, Any], results: dict[str, Any], signer: KeySigner = EARNER) -> dict[str, Any]:
    """An answer around a manifest, signed."""
    receipt = Receipt(
        chain_id=CHAIN,
        contract=CONTRACT,
        lease_id=manifest["lease_id"],
        computation_id=manifest["computation_id"],
        request_hash=manifest["request_hash"],
        product_version=manifest["product_version"],
        result_hash=hash_manifest(manifest),
    )
    return {
        "success": manifest["exit"]["failure"] is None,
        "computation_id": manifest["computation_id"],
        "results": results,
        "manifest": manifest,
        "result_hash": hash_manifest(manifest),
        "receipt": dict(receipt.sign(signer)),
    }


def problem_response(code: str, status: int, **more: Any) -> web.Response:
    body = {
        "type": "about:blank",
        "title": code,
        "status": status,
        "detail": f"{code} it is",
        "code": code,
        "request_id": "r1",
        **more,
    }
    return web.Response(body=json.dumps(body).encode(), status=status, content_type="application/problem+json")


def _routes(node: FakeNode) -> web.Application:
    async def answered(request: web.Request, body: dict[str, Any], status: int = 200, **headers: str) -> web.StreamResponse:
        if node.hook is not None:
            changed = await node.hook(request, body)
            if isinstance(changed, web.StreamResponse):
                return changed
            body = body if changed is None else changed
        return web.json_response(body, status=status, headers=headers)

    async def well_known(request: web.Request) -> web.StreamResponse:
        return await answered(request, {"chain_id": CHAIN, "contract": CONTRACT})

    async def execute(request: web.Request) -> web.StreamResponse:
        signed = await node.verify_request(request)
        asked = parse_execute_request(await request.read())
        assert signed.idempotency_key
        first = node.by_key.get(signed.idempotency_key)
        answer = node.jobs[first] if first else node.run_computation(asked, signed)
        node.by_key[signed.idempotency_key] = answer["computation_id"]
        node.jobs[answer["computation_id"]] = answer
        if not node.asynchronous:
            return await answered(request, answer)
        location = f"/api/v1/privacy/results/{answer['computation_id']}"
        accepted = {"computation_id": answer["computation_id"], "status": "pending", "location": location, "job_token": TOKEN}
        return await answered(request, accepted, 202, Location=location)

    async def result(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Pandacea-Job-Token") != TOKEN:
            await node.verify_request(request)
        node.polls += 1
        computation = request.match_info["id"]
        if computation not in node.jobs:
            return problem_response("computation-unknown", 404)
        if node.polls < node.polls_until_ended:
            return await answered(request, {"computation_id": computation, "status": "running"})
        ended = node.jobs[computation] | {"status": "completed"}
        if request.query.get("artifacts") == "none":
            results = {name: value for name, value in ended["results"].items() if name != "artifacts"}
            sizes = {name: len(base64.b64decode(text)) for name, text in ended["results"]["artifacts"].items()}
            ended["results"] = results | {"artifact_sizes": sizes}
        return await answered(request, ended)

    async def artifact(request: web.Request) -> web.StreamResponse:
        await node.verify_request(request)
        node.seen_headers.append(dict(request.headers))
        if node.hook is not None and isinstance(changed := await node.hook(request, {}), web.StreamResponse):
            return changed
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        response = web.StreamResponse(status=206 if start else 200, headers={"Content-Length": str(len(WEIGHTS) - start)})
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(WEIGHTS) - 1}/{len(WEIGHTS)}"
        await response.prepare(request)
        if node.pieces:
            await response.write(node.pieces.pop(0))
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(WEIGHTS[start:])
        return response

    async def events(request: web.Request) -> web.StreamResponse:
        await node.verify_request(request)
        node.seen_headers.append(dict(request.headers))
        return web.Response(body=node.streams.pop(0), content_type="text/event-stream")

    async def upload(request: web.Request) -> web.StreamResponse:
        await node.verify_request(request)
        node.uploads[request.match_info["digest"]] = await request.read()
        return await answered(request, {"sha256": request.match_info["digest"]})

    async def echo(request: web.Request) -> web.StreamResponse:
        address = (await node.verify_request(request)).address if "Signature" in request.headers else None
        return await answered(request, {"address": address, "path": request.raw_path, "data": [], "nextCursor": ""})

    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        node.requests.append(f"{request.method} {request.raw_path}")
        try:
            return await handler(request)
        except ProtocolError as error:
            return problem_response(error.code, 401)

    app = web.Application(middlewares=[record], client_max_size=10**9)
    app.router.add_get("/.well-known/pandacea", well_known)
    app.router.add_post("/api/v1/privacy/execute", execute)
    app.router.add_get("/api/v1/privacy/results/{id}", result)
    app.router.add_get("/api/v1/privacy/results/{id}/artifacts/{name}", artifact)
    app.router.add_get("/api/v1/privacy/results/{id}/events", events)
    app.router.add_put("/api/v1/privacy/uploads/{digest}", upload)
    app.router.add_route("*", "/{rest:.*}", echo)
    return app


@pytest.fixture
def node() -> Iterator[FakeNode]:
    """The server runs on a thread of its own, so that the synchronous client can be tested as it is used."""
    made = FakeNode()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    runner = web.AppRunner(_routes(made), access_log=None, shutdown_timeout=1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.port = runner.addresses[0][1]

    asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield made
    finally:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
