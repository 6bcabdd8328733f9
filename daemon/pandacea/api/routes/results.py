"""Routes of one computation: its state and result, its cancellation, its artifacts."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

from aiohttp import web

from pandacea.api.access import is_settled, load_readable_job, require_readable, visible_state, wait_until_settled
from pandacea.api.node import NODE
from pandacea.api.openapi.operation import (
    BYTES,
    COMPUTATION_ID,
    READ_PROBLEMS,
    RESULT_PROBLEMS,
    Auth,
    header_parameter,
    operation,
    path_parameter,
)
from pandacea.api.responses import artifact_chunks, status_response
from pandacea.domain.job import TERMINAL, JobState
from pandacea.domain.outcome import Failure
from pandacea.errors import ProblemError
from pandacea.flows.cancel import cancel_job
from pandacea_sdk.protocol import responses
from pandacea_sdk.protocol.problems import ProtocolError

RESULTS: Final = "/api/v1/privacy/results/{computation_id}"
MAX_WAIT_SECONDS: Final = 30
"""The longest a long-poll may last."""

_RANGE: Final = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


@operation(
    "GET",
    RESULTS,
    "Where a computation stands, with its result once it has ended",
    Auth.SIGNED_OR_TOKEN,
    {200: responses.StatusAnswer},
    (*READ_PROBLEMS, *RESULT_PROBLEMS, "bad-parameter", "too-many-streams"),
    parameters=(
        COMPUTATION_ID,
        {
            "name": "wait",
            "in": "query",
            "description": "Answer when the computation ends, at most so many seconds later.",
            "schema": {"type": "integer", "minimum": 0, "maximum": MAX_WAIT_SECONDS},
        },
        {
            "name": "artifacts",
            "in": "query",
            "description": "`none`: the artifacts' names and sizes (`results.artifact_sizes`) instead of their bytes.",
            "schema": {"type": "string", "enum": ["none"]},
        },
    ),
)
async def get_status(request: web.Request) -> web.StreamResponse:
    """Answer with the state of a computation; `?wait=N` waits for its end, at most N seconds; `?artifacts=none` leaves bytes out."""
    node = request.app[NODE]
    job = await load_readable_job(request, node)
    seconds, artifacts = _wait(request), _wants_artifacts(request)
    if seconds and not is_settled(job, node):
        with node.streams.hold(job.spender):
            job = await wait_until_settled(request, job, node, seconds)
        require_readable(job, node)
    return await status_response(request, job, node, artifacts=artifacts)


@operation(
    "DELETE",
    RESULTS,
    "Cancel a computation that waits or runs",
    Auth.SIGNED,
    {204: None},
    (*READ_PROBLEMS, "not-cancellable"),
    parameters=(COMPUTATION_ID,),
)
async def delete_computation(request: web.Request) -> web.Response:
    """Cancel a computation that waits or runs."""
    node = request.app[NODE]
    job = await load_readable_job(request, node, token_opens=False)
    await cancel_job(job, node.database, node.notifier, node.clock, node.results)
    return web.Response(status=204)


@operation(
    "GET",
    RESULTS + "/artifacts/{name:.+}",
    "An artifact's raw bytes; Range (RFC 9110) is served",
    Auth.SIGNED_OR_TOKEN,
    {200: BYTES, 206: BYTES},
    (*READ_PROBLEMS, *RESULT_PROBLEMS, "artifact-unknown", "range-not-satisfiable"),
    parameters=(COMPUTATION_ID, path_parameter("name"), header_parameter("Range", "One range of bytes.")),
)
async def get_artifact(request: web.Request) -> web.StreamResponse:
    """Stream an artifact's bytes. One byte range (RFC 9110) is served; `If-Range` and `If-None-Match` are supported."""
    node = request.app[NODE]
    job = await load_readable_job(request, node)
    if visible_state(job, node) is JobState.HELD:
        raise ProblemError("result-held", "The Earner has not released this result.")
    if job.failure is Failure.RESULT_REFUSED:
        raise ProblemError("result-refused", job.detail)
    name = request.match_info["name"]
    if job.state not in TERMINAL:
        raise _artifact_unknown()  # before any is read: those of a held run exist
    async with node.database.read_session() as view:
        kept = {item.name: item for item in await view.jobs.list_artifacts(job.computation_id)}
    if name not in kept:
        raise _artifact_unknown()
    if job.removed_at is not None:
        raise ProblemError("result-expired", "The node no longer keeps this result's bytes.")
    item = kept[name]
    # An artifact never changes: computation and position identify its version without a digest of its bytes.
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
    """Return (first byte, byte after the last, status). A header that is not one byte range is ignored, as RFC 9110 allows.

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


def _wants_artifacts(request: web.Request) -> bool:
    choice = request.query.get("artifacts")
    if choice not in {None, "none"}:
        raise ProtocolError("bad-parameter", 'artifacts is "none", or left out for their bytes in base64.')
    return choice is None


def _artifact_unknown() -> ProblemError:
    return ProblemError("artifact-unknown", "This computation left no such artifact; its manifest names those it left.")
