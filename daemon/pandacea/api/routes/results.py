"""GET and DELETE /api/v1/privacy/results/{computation_id}, and its artifacts."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

from aiohttp import web

from pandacea.api.access import is_settled, load_readable_job, require_readable, visible_state, wait_until_settled
from pandacea.api.node import NODE
from pandacea.api.responses import artifact_chunks, status_response
from pandacea.domain.job import TERMINAL, JobState
from pandacea.domain.outcome import Failure
from pandacea.errors import ProblemError
from pandacea.flows.cancel import cancel_job
from pandacea_sdk.protocol.problems import ProtocolError

ROUTE: Final = "/api/v1/privacy/results/{computation_id}"
ARTIFACT_ROUTE: Final = ROUTE + "/artifacts/{name:.+}"
MAX_WAIT_SECONDS: Final = 30
"""Seconds a long-poll may last."""

_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


async def get_status(request: web.Request) -> web.StreamResponse:
    """Where a computation stands; `?wait=N` answers when it ends, at most N seconds later."""
    node = request.app[NODE]
    job = await load_readable_job(request, node)
    seconds = _wait(request)
    if seconds and not is_settled(job, node):
        with node.streams.hold(job.spender):
            job = await wait_until_settled(job, node, seconds)
        require_readable(job, node)
    return await status_response(request, job, node)


async def delete_computation(request: web.Request) -> web.Response:
    """Cancel a computation."""
    node = request.app[NODE]
    job = await load_readable_job(request, node, token_opens=False)
    await cancel_job(job, node.database, node.notifier, node.clock, node.submit.results)
    return web.Response(status=204)


async def get_artifact(request: web.Request) -> web.StreamResponse:
    """An artifact's bytes, streamed. One byte range (RFC 9110) is served, `If-Range` and `If-None-Match` are honoured."""
    node = request.app[NODE]
    job = await load_readable_job(request, node)
    if visible_state(job, node) is JobState.HELD:
        raise ProblemError("result-held", "The Earner has not released this result.")
    if job.failure is Failure.RESULT_REFUSED:
        raise ProblemError("result-refused", job.detail)
    name = request.match_info["name"]
    async with node.database.read_session() as view:
        kept = {item.name: item for item in await view.jobs.list_artifacts(job.computation_id)}
    if job.state not in TERMINAL or name not in kept:
        raise ProblemError("artifact-unknown", "This computation left no such artifact; its manifest names those it left.")
    if job.removed_at is not None:
        raise ProblemError("result-expired", "The node no longer keeps this result's bytes.")
    item = kept[name]
    # No digest of the bytes in a header: an artifact never changes, so its computation and place name its version.
    etag = f'"{job.computation_id[2:34]}-{item.file}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes"}
    if _matches(request.headers.get("If-None-Match"), etag):
        return web.Response(status=304, headers=headers)
    start, end, status_code = _range(request, item.size, etag)
    response = web.StreamResponse(
        status=status_code,
        headers={
            **headers,
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - start),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(PurePosixPath(name).name)}",
        },
    )
    if status_code == 206:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{item.size}"
    await response.prepare(request)
    if request.method != "HEAD":
        async for piece in artifact_chunks(job, item, node, start, end):
            await response.write(piece)
    await response.write_eof()
    return response


def _matches(header: str | None, etag: str) -> bool:
    return header is not None and (header.strip() == "*" or etag in {part.strip().removeprefix("W/") for part in header.split(",")})


def _range(request: web.Request, size: int, etag: str) -> tuple[int, int, int]:
    """(first byte, byte after the last, status). A header that is no single byte range is ignored, as RFC 9110 allows.

    Ranges are defined for GET alone (section 14.2).
    """
    header = request.headers.get("Range") if request.method == "GET" else None
    condition = request.headers.get("If-Range")
    found = _RANGE.fullmatch(header.strip()) if header is not None else None
    if found is None or not any(found.groups()) or (condition is not None and condition.strip() != etag):
        return 0, size, 200
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return 0, size, 200
    else:
        start, end = max(size - int(last), 0), size
    if start >= size or start >= end:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return start, end, 206


def _wait(request: web.Request) -> float:
    text = request.query.get("wait", "0")
    if not text.isascii() or not text.isdigit() or int(text[:9]) > MAX_WAIT_SECONDS:
        raise ProtocolError("bad-parameter", f"wait is a whole number of seconds, at most {MAX_WAIT_SECONDS}.")
    return float(text)
