"""GET and DELETE /api/v1/privacy/results/{computation_id}, and its artifacts."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from urllib.parse import quote

from aiohttp import web

from pandacea.api.answers import status_answer
from pandacea.api.auth import job_token, signed
from pandacea.api.node import NODE, Node
from pandacea.domain.access import Denied, may_read
from pandacea.domain.ids import HASH32, Address
from pandacea.domain.job import TERMINAL, Job, JobState
from pandacea.flows.cancel import cancel
from pandacea.flows.submit import Forbidden, allow
from pandacea_sdk.protocol.problems import ProtocolError

ROUTE = "/api/v1/privacy/results/{computation_id}"
ARTIFACT_ROUTE = ROUTE + "/artifacts/{name:.+}"
MAX_WAIT = 30
"""Seconds a long-poll may last."""


async def status(request: web.Request) -> web.Response:
    """Where a computation stands; `?wait=N` answers when it ends, at most N seconds later."""
    node = request.app[NODE]
    job = await _readable(request, node)
    seconds = _wait(request)
    if seconds and job.state not in TERMINAL | {JobState.HELD}:
        with node.streams.hold(job.spender):
            job = await _after(job, node, seconds)
        _may_read(job, node)
    headers = {} if job.state in TERMINAL else {"Retry-After": "1"}
    return web.json_response(await status_answer(job, node.books, node.results_dir), headers=headers)


async def remove(request: web.Request) -> web.Response:
    """Cancel a computation."""
    node = request.app[NODE]
    job = await _readable(request, node, token_opens=False)
    await cancel(job, node.books, node.watch, node.clock)
    return web.Response(status=204)


async def artifact(request: web.Request) -> web.StreamResponse:
    """An artifact's bytes, streamed; Range (RFC 9110) is served."""
    node = request.app[NODE]
    job = await _readable(request, node)
    if job.state is JobState.HELD:
        raise Forbidden("result-held", "The Earner has not released this result.")
    name = request.match_info["name"]
    async with node.books.read() as view:
        kept = {item.name: item for item in await view.jobs.artifacts(job.computation_id)}
    if job.state not in TERMINAL or name not in kept:
        raise Forbidden("artifact-unknown", "This computation left no such artifact; its manifest names those it left.")
    if job.removed_at is not None:
        raise Forbidden("result-expired", "The node no longer keeps this result's bytes.")
    path = node.results_dir / job.computation_id / kept[name].file
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(Path(name).name)}",
        "ETag": f'"{kept[name].sha256}"',
    }
    return web.FileResponse(path, headers=headers)


async def _readable(request: web.Request, node: Node, *, token_opens: bool = True) -> Job:
    """The computation, if this caller may read it. An unknown id and somebody else's look alike."""
    computation_id = request.match_info["computation_id"]
    token = job_token(request) if token_opens else None
    spender = None if token else Address((await signed(request)).address)
    job = None
    if HASH32.fullmatch(computation_id):
        async with node.books.read() as view:
            job = await view.jobs.get(computation_id)
    if token:
        digest = hashlib.sha256(token.encode()).hexdigest()
        if job is None or job.token_sha256 is None or not hmac.compare_digest(digest, job.token_sha256):
            raise ProtocolError("job-token-invalid", "This job token opens no such computation; sign the request instead.")
    elif job is None or job.spender != spender:
        raise Forbidden("computation-unknown", "No computation of yours has this id here.")
    assert job is not None
    _may_read(job, node)
    return job


def _may_read(job: Job, node: Node) -> None:
    answer = may_read(node.book.lease(job.lease_id), node.book.standing(), caller=Address(job.spender))
    if isinstance(answer, Denied) and answer.code == "lease-unknown":
        answer = Denied("computation-unknown", "No computation of yours has this id here.")
    allow(answer)


def _wait(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    if not text.isascii() or not text.isdigit() or int(text) > MAX_WAIT:
        raise ProtocolError("bad-parameter", f"wait is a whole number of seconds, at most {MAX_WAIT}.")
    return float(text)


async def _after(job: Job, node: Node, seconds: float) -> Job:
    ended = node.watch.join(job.computation_id)
    try:
        async with node.books.read() as view:
            current = await view.jobs.get(job.computation_id) or job
        if current.state in TERMINAL | {JobState.HELD}:
            return current
        await node.watch.until(ended, seconds)
    finally:
        node.watch.leave(job.computation_id, ended)
    async with node.books.read() as view:
        return await view.jobs.get(job.computation_id) or job
