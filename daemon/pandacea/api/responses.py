"""HTTP responses about jobs: the shapes of `pandacea_sdk.protocol.responses`, from rows and files; large ones are streamed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from typing import BinaryIO, Final

from aiohttp import web

from pandacea.api.access import require_readable, visible_state
from pandacea.api.node import NodeContext
from pandacea.domain.job import TERMINAL, Job, JobState
from pandacea.domain.outcome import Failure
from pandacea.errors import ProblemError
from pandacea.flows.unit_of_work import StoredArtifact
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.responses import output_members

CHUNK_BYTES: Final = 3 * 65_536
"""Bytes of a file between two checks of the lease; a multiple of 3, so that chunks of base64 join without padding."""

_RETRYABLE: Final = frozenset({Failure.QUEUE_DEADLINE, Failure.SANDBOX_FAILED, Failure.INTERRUPTED})
"""Failures caused by the node: the same request, sent again, may succeed."""


async def status_response(request: web.Request, job: Job, node: NodeContext, *, artifacts: bool = True) -> web.StreamResponse:
    """Answer GET results: the state of a computation, with its result once it has one and while that is kept.

    `artifacts` False: their names and sizes instead of their bytes.
    """
    state = visible_state(job, node)
    answer: JsonObject = {"computation_id": job.computation_id, "status": state.value}
    if state not in TERMINAL:
        return web.json_response(answer, headers={"Retry-After": "1"})
    if job.has_result and job.removed_at is None:
        return await _stream(request, answer, job, node) if artifacts else await _record_response(answer, job, node)
    answer["reason"] = job.detail
    if job.error is not None:
        answer["error"] = job.error
    return web.json_response(answer)


async def result_response(request: web.Request, job: Job, node: NodeContext) -> web.StreamResponse:
    """Answer POST execute with 200: the whole output and all artifacts, manifest and receipt as they were signed.

    Raises:
        ProblemError: there is no result, and why: `result-refused`, `result-expired`, `computation-cancelled`, `computation-failed`,
            or `computation-interrupted` (sent again it may succeed).
    """
    if job.failure is Failure.RESULT_REFUSED:
        raise ProblemError("result-refused", job.detail)
    if job.removed_at is not None:
        raise ProblemError(
            "result-expired", "The node no longer keeps this result's bytes; its manifest and receipt were sent with it."
        )
    if not job.has_result:
        raise ProblemError(_code_of(job), f"The computation {job.computation_id} has no result: {job.detail}", failure=job.failure)
    return await _stream(request, {"computation_id": job.computation_id}, job, node)


def _code_of(job: Job) -> str:
    if job.state is JobState.CANCELLED:
        return "computation-cancelled"
    return "computation-interrupted" if job.failure in _RETRYABLE else "computation-failed"


async def _stream(request: web.Request, first: JsonObject, job: Job, node: NodeContext) -> web.StreamResponse:
    """Stream the answer: artifacts may have a hundred megabytes, and the lease is checked before each chunk."""
    async with node.database.read_session() as view:
        kept = await view.jobs.list_artifacts(job.computation_id)
    head, tail = await asyncio.to_thread(_frame, first, job)
    between = [b"," if index else b"" for index in range(len(kept))]
    names = [comma + json.dumps(item.name).encode() + b':"' for comma, item in zip(between, kept, strict=True)]
    size = len(head) + len(tail) + sum(len(name) + 1 + 4 * -(-item.size // 3) for name, item in zip(names, kept, strict=True))
    response = web.StreamResponse(headers={"Content-Type": "application/json; charset=utf-8", "Content-Length": str(size)})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    await response.write(head)
    for name, item in zip(names, kept, strict=True):
        await response.write(name)
        async for piece in artifact_chunks(job, item, node):
            await response.write(base64.b64encode(piece))
        await response.write(b'"')
    await response.write(tail)
    await response.write_eof()
    return response


async def _record_response(first: JsonObject, job: Job, node: NodeContext) -> web.Response:
    """Answer with all of a result but its artifacts' bytes, for clients that fetch each one by itself."""
    async with node.database.read_session() as view:
        kept = await view.jobs.list_artifacts(job.computation_id)
    sizes = {item.name: item.size for item in kept}
    text = await asyncio.to_thread(_result_json, first, job, {**output_members(job.output), "artifact_sizes": sizes})
    require_readable(job, node)
    return web.Response(text=text, content_type="application/json")


def _frame(first: JsonObject, job: Job) -> tuple[bytes, bytes]:
    """Return the JSON before and after the artifacts' members."""
    text = _result_json(first, job, {**output_members(job.output), "artifacts": {}})
    # `results` is the last member and `artifacts` the last of it: the text ends in the two objects' closing braces.
    return text[:-3].encode(), b"}}}"


def _result_json(first: JsonObject, job: Job, results: JsonObject) -> str:
    answer: JsonObject = {
        **first,
        "success": job.failure is None,
    }
    if job.manifest is None:
        answer["mode"] = job.mode.value  # a rehearsal: nobody signs for mock rows
    else:
        answer |= {"manifest": json.loads(job.manifest), "result_hash": job.result_hash, "receipt": job.receipt}
    if job.error is not None:
        answer["error"] = job.error
    return json.dumps(answer | {"results": results}, separators=(",", ":"))


async def artifact_chunks(
    job: Job, item: StoredArtifact, node: NodeContext, start: int = 0, end: int | None = None
) -> AsyncIterator[bytes]:
    """Yield bytes [start, end) of an artifact; the lease is checked before each chunk.

    Raises:
        ProblemError, Unavailable: nothing more may leave.
    """
    left = (item.size if end is None else end) - start
    with await asyncio.to_thread((node.results.path_of(job.computation_id) / item.file).open, "rb") as file:
        await asyncio.to_thread(file.seek, start)
        while left > 0:
            piece = await asyncio.to_thread(_read, file, min(CHUNK_BYTES, left))
            require_readable(job, node)
            left -= len(piece)
            yield piece


def _read(file: BinaryIO, size: int) -> bytes:
    piece = file.read(size)
    if len(piece) != size:
        raise ConnectionResetError("a kept artifact is shorter than its row says")
    return piece
