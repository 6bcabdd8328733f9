"""Jobs as they are answered: the shapes of `pandacea_sdk.protocol.answers`, from rows and files."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from pandacea.domain.job import TERMINAL, Job, JobState
from pandacea.flows.ports import Books, KeptArtifact
from pandacea.flows.submit import Forbidden
from pandacea_sdk.protocol.answers import output_members


async def status_answer(job: Job, books: Books, results_dir: Path) -> dict[str, Any]:
    """GET results: where a computation stands, with its result once it ended with one and while that is kept."""
    answer: dict[str, Any] = {"computation_id": job.computation_id, "status": job.state.value}
    if job.state in TERMINAL and job.receipt is not None and job.removed_at is None:
        return answer | await result_answer(job, books, results_dir)
    if job.state in TERMINAL:
        answer["reason"] = job.detail
        if job.error is not None:
            answer["error"] = job.error
    return answer


async def result_answer(job: Job, books: Books, results_dir: Path) -> dict[str, Any]:
    """The 200 of POST execute: output and artifacts whole, manifest and receipt as they were sealed.

    Raises:
        Forbidden: `computation-failed`: it ended before any user code ran, so there is no result; the sentence says why.
            `result-expired`: the bytes are no longer kept.
    """
    if job.removed_at is not None:
        raise Forbidden(
            "result-expired", "The node no longer keeps this result's bytes; its manifest and receipt were sent with it."
        )
    if job.manifest is None or job.receipt is None:
        raise Forbidden("computation-failed", job.detail, failure=job.failure)
    async with books.read() as view:
        kept = await view.jobs.artifacts(job.computation_id)
    artifacts = await asyncio.to_thread(_encoded, results_dir / job.computation_id, kept)
    answer: dict[str, Any] = {
        "success": job.state is JobState.COMPLETED and job.failure is None,
        "computation_id": job.computation_id,
        "results": {**output_members(job.output), "artifacts": artifacts},
        "manifest": json.loads(job.manifest),
        "result_hash": job.result_hash,
        "receipt": job.receipt,
    }
    if job.error is not None:
        answer["error"] = job.error
    return answer


def _encoded(folder: Path, kept: list[KeptArtifact]) -> dict[str, str]:
    return {item.name: base64.b64encode((folder / item.file).read_bytes()).decode("ascii") for item in kept}
