"""POST /api/v1/privacy/execute: the one route that makes a computation."""

from __future__ import annotations

import hashlib

from aiohttp import web

from pandacea.api.answers import result_answer
from pandacea.api.auth import signed
from pandacea.api.middleware import require_json
from pandacea.api.node import NODE, Node
from pandacea.domain.access import may_read
from pandacea.domain.ids import Address, AssetId, Hash32, LeaseId
from pandacea.domain.job import TERMINAL, Job, JobState, Mode
from pandacea.errors import Unavailable
from pandacea.flows.submit import Accepted, Caller, Forbidden, Order, allow, submit
from pandacea_sdk.protocol.wire import read_execute_request

ROUTE = "/api/v1/privacy/execute"
ENDED = TERMINAL | {JobState.HELD}


async def execute(request: web.Request) -> web.Response:
    """Accept a computation; answer its result, or with `Prefer: respond-async` (RFC 7240) a place to ask for it."""
    node = request.app[NODE]
    signer = await signed(request)
    require_json(request)
    body = await request.read()
    asked = read_execute_request(body)
    background = _respond_async(request)
    if asked.mode == "mock" or asked.lease_id is None:
        raise Forbidden("rehearsal-off", "This product offers no mock rows to rehearse on yet; send the script without `mode`.")
    if asked.uploads:
        name = next(iter(asked.uploads))
        raise Forbidden("upload-not-found", f"The upload {name!r} is not on this node; this node takes no uploads.")
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
    if background:
        return _accepted(accepted)
    return web.json_response(await _result(accepted.job, caller, node))


def _respond_async(request: web.Request) -> bool:
    preferences = ",".join(request.headers.getall("Prefer", []))
    return any(part.split(";")[0].strip().lower() == "respond-async" for part in preferences.split(","))


def _accepted(accepted: Accepted) -> web.Response:
    job = accepted.job
    location = f"/api/v1/privacy/results/{job.computation_id}"
    body = {"computation_id": job.computation_id, "status": job.state.value, "location": location}
    if accepted.token is not None:
        body["job_token"] = accepted.token
    headers = {"Location": location, "Preference-Applied": "respond-async"}
    return web.json_response(body, status=202, headers=headers)


async def _result(job: Job, caller: Caller, node: Node) -> dict[str, object]:
    """Wait for the end, then ask the lease once more: a result leaves only to whom it may."""
    ended = node.watch.join(job.computation_id)
    try:
        current = await _current(job, node)
        left = node.submit.queue.seconds + node.submit.limits.time_seconds + 60
        if current.state not in ENDED:
            await node.watch.until(ended, left)
            current = await _current(job, node)
    finally:
        node.watch.leave(job.computation_id, ended)
    allow(may_read(node.book.lease(job.lease_id), node.book.standing(), caller=caller.address))
    if current.state is JobState.HELD:
        raise Forbidden(
            "result-held", "The computation ended; its Earner looks at the result before releasing it. Ask again later."
        )
    if current.state not in TERMINAL:
        raise Unavailable("The computation has not ended yet; ask for its result by its id.", retry_after=30)
    return await result_answer(current, node.books, node.results_dir)


async def _current(job: Job, node: Node) -> Job:
    async with node.books.read() as view:
        return await view.jobs.get(job.computation_id) or job
