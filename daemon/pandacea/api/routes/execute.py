"""POST /api/v1/privacy/execute: the one route that makes a computation."""

from __future__ import annotations

import hashlib

from aiohttp import web

from pandacea.api.answers import result_answer
from pandacea.api.auth import signed
from pandacea.api.middleware import require_json
from pandacea.api.node import NODE, Node
from pandacea.api.reading import seen, settles, still_readable
from pandacea.domain.ids import Address, AssetId, Hash32, LeaseId
from pandacea.domain.job import TERMINAL, Job, Mode
from pandacea.domain.product import Release
from pandacea.errors import Unavailable
from pandacea.flows.submit import Accepted, Caller, Forbidden, Order, submit
from pandacea_sdk.protocol.wire import read_execute_request

ROUTE = "/api/v1/privacy/execute"
GRACE_SECONDS = 60.0


async def execute(request: web.Request) -> web.StreamResponse:
    """Accept a computation; answer its result, or with `Prefer: respond-async` (RFC 7240) a place to ask for it."""
    node = request.app[NODE]
    signer = await signed(request)
    require_json(request)
    body = await request.read()
    asked = read_execute_request(body)
    background = _respond_async(request)
    if asked.mode == "mock" or asked.lease_id is None:
        raise Forbidden("rehearsal-off", "This product offers no mock rows to rehearse on yet; send the script without `mode`.")
    order = Order(
        lease_id=LeaseId(asked.lease_id),
        code=asked.code,
        inputs=tuple((AssetId(item.asset_id), item.variable_name) for item in asked.inputs),
        params=asked.params_bytes().decode(),
        uploads=dict(asked.uploads),
        product_version=asked.product_version,
        mode=Mode.LIVE,
        body_sha256=hashlib.sha256(body).hexdigest(),
        idempotency_key=signer.idempotency_key,
        wants_token=background,
    )
    caller = Caller(Address(signer.address), Hash32(signer.request_hash))
    accepted = await submit(order, caller, node.submit)
    if background or accepted.job.release == Release.HOLD:
        return _accepted(accepted, node, background=background)
    return await _result(request, accepted.job, node)


def _respond_async(request: web.Request) -> bool:
    preferences = ",".join(request.headers.getall("Prefer", []))
    return any(part.split(";")[0].strip().lower() == "respond-async" for part in preferences.split(","))


def _accepted(accepted: Accepted, node: Node, *, background: bool) -> web.Response:
    """202: a place to ask, and a token to ask with. What waits for the Earner's word is answered so without being asked to."""
    job = accepted.job
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
