"""POST execute: the only route that starts a computation."""

from __future__ import annotations

import hashlib
from typing import Final

from aiohttp import web

from pandacea.api.access import require_readable, visible_state, wait_until_settled
from pandacea.api.auth import authenticate_spender
from pandacea.api.middleware import read_body, require_json
from pandacea.api.node import NODE, NodeContext
from pandacea.api.openapi.operation import RESULT_PROBLEMS, Auth, header_parameter, json_request, operation
from pandacea.api.responses import result_response
from pandacea.domain.ids import Address, AssetId, Hash32, LeaseId
from pandacea.domain.job import TERMINAL, Job, Mode
from pandacea.domain.product import Release
from pandacea.errors import Unavailable
from pandacea.flows.accept_job import AcceptedJob, Caller, ComputationRequest
from pandacea.flows.cancel import as_spender_sees
from pandacea.flows.rehearse import rehearse
from pandacea.flows.submit import submit_job
from pandacea_sdk.protocol import problems, responses
from pandacea_sdk.protocol.execute_request import parse_execute_request

GRACE_SECONDS: Final = 60.0
"""Beyond the queue's and the script's time limits, how long a request waits for its result."""


@operation(
    "POST",
    "/api/v1/privacy/execute",
    "Run a script on leased data",
    Auth.SIGNED,
    {200: responses.ExecuteAnswer, 202: responses.Accepted},
    (
        *problems.BODY_PROBLEMS,
        *problems.LEASE_PROBLEMS,
        *problems.CODE_PROBLEMS,
        *RESULT_PROBLEMS,
        "idempotency-conflict",
        "too-many-jobs",
        "upload-unknown",
        "uploads-too-large",
        "too-many-streams",
        "rehearsal-off",
        "results-full",
        "disk-full",
        "unsupported-media-type",
    ),
    request=json_request("ExecuteRequest"),
    parameters=(
        header_parameter("Prefer", "`respond-async` (RFC 7240): answer 202 at once, with a place to ask for the result."),
        header_parameter("Idempotency-Key", "One computation for all requests of this Spender and lease with this key and body."),
    ),
)
async def post_execute(request: web.Request) -> web.StreamResponse:
    """Accept a computation; answer its result, or with `Prefer: respond-async` (RFC 7240) a place to ask for it."""
    node = request.app[NODE]
    signer = await authenticate_spender(request)
    require_json(request)
    body = await read_body(request)
    asked = parse_execute_request(body)
    background = _respond_async(request)
    rehearsal = asked.mode == "mock"
    (node.rates.rehearsals if rehearsal else node.rates.computations).acquire(signer.address)
    order = ComputationRequest(
        lease_id=LeaseId(asked.lease_id),
        code=asked.code,
        inputs=tuple((AssetId(item.asset_id), item.variable_name) for item in asked.inputs),
        params=asked.params_bytes().decode(),
        uploads=dict(asked.uploads),
        product_version=asked.product_version,
        mode=Mode.MOCK if rehearsal else Mode.LIVE,
        body_sha256=hashlib.sha256(body).hexdigest(),
        idempotency_key=signer.idempotency_key,
        wants_token=background,
        seed=asked.seed,
    )
    caller = Caller(Address(signer.address), Hash32(signer.request_hash))
    accept = rehearse if rehearsal else submit_job
    if background:
        return _accepted_response(await accept(order, caller, node.submit), node, background=True)
    # Taken before anything is accepted: a request that may not wait must not make a computation to wait for.
    with node.streams.hold(caller.address):
        accepted = await accept(order, caller, node.submit)
        if accepted.job.release == Release.HOLD:
            return _accepted_response(accepted, node, background=False)
        job = await _wait_for_end(request, accepted.job, node)
    return await result_response(request, job, node)


def _respond_async(request: web.Request) -> bool:
    preferences = ",".join(request.headers.getall("Prefer", []))
    return any(part.split(";")[0].strip().lower() == "respond-async" for part in preferences.split(","))


def _accepted_response(accepted: AcceptedJob, node: NodeContext, *, background: bool) -> web.Response:
    """Answer 202 with the location of the result and, where given, a token. Held results are always answered so."""
    job = as_spender_sees(accepted.job)
    location = f"/api/v1/privacy/results/{job.computation_id}"
    body = {"computation_id": job.computation_id, "status": visible_state(job, node).value, "location": location}
    if accepted.token is not None:
        body["job_token"] = accepted.token
    headers = {"Location": location} | ({"Preference-Applied": "respond-async"} if background else {})
    return web.json_response(body, status=202, headers=headers)


async def _wait_for_end(request: web.Request, job: Job, node: NodeContext) -> Job:
    """Wait for the end, then check the lease again before the result leaves."""
    job = await wait_until_settled(request, job, node, node.max_wait_seconds + node.limits.time_seconds + GRACE_SECONDS)
    require_readable(job, node)
    if job.state not in TERMINAL:
        raise Unavailable(f"The computation {job.computation_id} has not ended yet; ask for its result by its id.", retry_after=30)
    return job
