"""POST /api/v1/privacy/execute: the one route that makes a computation."""

from __future__ import annotations

import hashlib

from aiohttp import web

from pandacea.api.answers import result_answer
from pandacea.api.auth import signed, signed_by_anyone
from pandacea.api.middleware import require_json
from pandacea.api.node import NODE, Node
from pandacea.api.reading import seen, settles, still_readable
from pandacea.domain.ids import Address, AssetId, Hash32, LeaseId
from pandacea.domain.job import NO_LEASE, TERMINAL, Job, Mode
from pandacea.domain.product import Release
from pandacea.errors import Unavailable
from pandacea.flows.cancel import as_seen
from pandacea.flows.rehearse import rehearse
from pandacea.flows.submit import Accepted, Caller, Order, submit
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.signing import SignedRequest
from pandacea_sdk.protocol.wire import read_execute_request

ROUTE = "/api/v1/privacy/execute"
GRACE_SECONDS = 60.0


async def execute(request: web.Request) -> web.StreamResponse:
    """Accept a computation; answer its result, or with `Prefer: respond-async` (RFC 7240) a place to ask for it."""
    node = request.app[NODE]
    body = await request.read()
    signer = await _signer(request, body)
    require_json(request)
    asked = read_execute_request(body)
    background = _respond_async(request)
    rehearsal = asked.mode == "mock"
    order = Order(
        lease_id=NO_LEASE if asked.lease_id is None else LeaseId(asked.lease_id),
        code=asked.code,
        inputs=tuple((AssetId(item.asset_id), item.variable_name) for item in asked.inputs),
        params=asked.params_bytes().decode(),
        uploads=dict(asked.uploads),
        product_version=asked.product_version,
        mode=Mode.MOCK if rehearsal else Mode.LIVE,
        body_sha256=hashlib.sha256(body).hexdigest(),
        idempotency_key=signer.idempotency_key,
        wants_token=background,
    )
    caller = Caller(Address(signer.address), Hash32(signer.request_hash))
    accepted = await (rehearse if rehearsal else submit)(order, caller, node.submit)
    if background or accepted.job.release == Release.HOLD:
        return _accepted(accepted, node, background=background)
    return await _result(request, accepted.job, node)


async def _signer(request: web.Request, body: bytes) -> SignedRequest:
    """Who asks: a known Spender or, for an open rehearsal, anyone, at the strangers' small shared rate."""
    try:
        return await signed(request)
    except ProtocolError as problem:
        # Looked for before the body is parsed: strangers cost no more than that.
        if problem.code != "unknown-spender" or b'"mock"' not in body:
            raise
        signer = await signed_by_anyone(request)
        asked = read_execute_request(body)
        if asked.mode != "mock" or asked.lease_id is not None:
            raise
        return signer


def _respond_async(request: web.Request) -> bool:
    preferences = ",".join(request.headers.getall("Prefer", []))
    return any(part.split(";")[0].strip().lower() == "respond-async" for part in preferences.split(","))


def _accepted(accepted: Accepted, node: Node, *, background: bool) -> web.Response:
    """202: a place to ask, and a token to ask with. What waits for the Earner's word is answered so without being asked to."""
    job = as_seen(accepted.job)
    location = f"/api/v1/privacy/results/{job.computation_id}"
    body = {"computation_id": job.computation_id, "status": seen(job, node).value, "location": location}
    if accepted.token is not None:
        body["job_token"] = accepted.token
    headers = {"Location": location} | ({"Preference-Applied": "respond-async"} if background else {})
    return web.json_response(body, status=202, headers=headers)


async def _result(request: web.Request, job: Job, node: Node) -> web.StreamResponse:
    """Wait for the end, then ask the lease once more: a result leaves only to whom it may."""
    job = await settles(job, node, node.submit.queue.seconds + node.submit.limits.time_seconds + GRACE_SECONDS)
    still_readable(job, node)
    if job.state not in TERMINAL:
        raise Unavailable(f"The computation {job.computation_id} has not ended yet; ask for its result by its id.", retry_after=30)
    return await result_answer(request, job, node)
