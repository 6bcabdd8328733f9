"""Release or refuse a held result, on the Earner's decision."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pandacea.domain.audit_entries import BY_NODE, BY_OPERATOR, audit_job
from pandacea.domain.charge import FREE_OUTPUT_BYTES, Charge, charge_at_end
from pandacea.domain.job import Job, JobState, Mode
from pandacea.domain.outcome import Failure
from pandacea.domain.printable import printable
from pandacea.errors import ProblemError
from pandacea.files.results import ResultStore
from pandacea.flows.job_events import CLEARED_RESULT, result_commitment
from pandacea.flows.live_output import JobNotifier
from pandacea.flows.messages import computation_event
from pandacea.flows.ports import Clock
from pandacea.flows.unit_of_work import Database, HeldRow, StoredArtifact

REASON_CHARACTERS: Final = 500
"""Characters of a refusal's reason that are kept."""
OUTPUT_FILE: Final = "output"
"""Name of the file that holds a held result's whole output, beside the artifacts, which are named by numbers."""


@dataclass(frozen=True, slots=True)
class ReleasePorts:
    """What the Earner's decision works with."""

    database: Database
    clock: Clock
    results: ResultStore
    notifier: JobNotifier
    hold_seconds: float
    """A result on which nobody decided for this long is refused: every job ends."""


async def list_held(ports: ReleasePorts) -> Sequence[HeldRow]:
    """Return what waits for a decision, oldest first; without the results themselves, which may take a gigabyte together."""
    async with ports.database.read_session() as session:
        return await session.jobs.list_held()


async def load_result(computation_id: str, ports: ReleasePorts) -> tuple[Job, list[StoredArtifact]]:
    """Return one result as it is stored here, for the Earner to look at.

    Raises:
        ProblemError: `computation-unknown`.
    """
    async with ports.database.read_session() as session:
        job = await session.jobs.find_job(computation_id)
        artifacts = await session.jobs.list_artifacts(computation_id)
    if job is None:
        raise _unknown(computation_id)
    return job, artifacts


async def write_output_file(job: Job, ports: ReleasePorts) -> Path | None:
    """Write a held result's whole output to a file beside its artifacts; None when it has none.

    A terminal shows the start of it only. The file goes with the result's folder: at the refusal, or when results expire.
    """
    if not job.output:
        return None
    return await ports.results.write_file(job.computation_id, OUTPUT_FILE, job.output)


async def digest_result(job: Job, artifacts: Sequence[StoredArtifact], ports: ReleasePorts) -> str:
    """Compute the sha-256 (hex) of all that a release would let out: the row's texts, the output, and each file as it is on the disk.

    `results show` prints it and `results release` takes it: what is released is what was looked at, byte for byte.

    Raises:
        ProblemError: `result-damaged`: a file is gone or is not what the run left.
    """
    folder = ports.results.path_of(job.computation_id)

    def digest_files() -> list[list[str]]:
        rows = []
        for artifact in sorted(artifacts, key=lambda item: item.name):
            path = folder / artifact.file
            try:
                with path.open("rb") as file:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as problem:
                raise ProblemError("result-damaged", f"{path} cannot be read ({problem.strerror}). Refuse the result.") from problem
            if found != artifact.sha256:
                raise ProblemError("result-damaged", f"{path} is not what the run left. Refuse the result.")
            rows.append([artifact.name, found])
        return rows

    texts = [job.computation_id, job.failure, job.detail, job.error, job.truncated, hashlib.sha256(job.output).hexdigest()]
    text = json.dumps([*texts, await asyncio.to_thread(digest_files)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


async def release_result(computation_id: str, ports: ReleasePorts, *, seen_digest: str | None = None, by: str = BY_OPERATOR) -> Job:
    """Release a held result: from this commit on its Spender may read it, and its hash goes on-chain.

    `seen_digest`: of what was looked at (`digest_result`); None only where no person looked. `by`: who releases it, for the audit log.

    Raises:
        ProblemError: `computation-unknown`, `not-held`, `result-damaged`, `result-not-seen`: what is stored is not what was looked at.
    """
    now = ports.clock.now()
    if seen_digest is not None:
        job, artifacts = await load_result(computation_id, ports)
        if await digest_result(_require_held(job, computation_id), artifacts, ports) != seen_digest:
            raise ProblemError(
                "result-not-seen",
                f"What is stored here is not what was shown. Look again: pandacea results show {job.computation_id}",
            )
    async with ports.database.unit_of_work() as work:
        job = _require_held(await work.jobs.find_job(computation_id), computation_id)
        counts = await work.jobs.count_by_charge(job.lease_key)
        failed_runs = counts.get(Charge.ALLOWANCE, 0)
        charge = job.charge_for_mode(charge_at_end(job.failure, code_started=True, released=True, failed_runs=failed_runs))
        if charge is Charge.ALLOWANCE and (len(job.output) > FREE_OUTPUT_BYTES or await work.jobs.list_artifacts(computation_id)):
            charge = Charge.CHARGED  # held before the allowance was bounded: what it left is handed over, so it is paid
        state = JobState.COMPLETED if job.failure is None else JobState.FAILED
        await work.jobs.change_state(computation_id, JobState.HELD, state, charge=charge, finished_at=now)
        await work.outbox.put_event(computation_event(replace(job, state=state), job.failure), now)
        if charge is Charge.CHARGED and job.result_hash is not None:
            await work.outbox.put_message(result_commitment(job, job.result_hash), now)
        if job.mode is Mode.LIVE:
            looked = {"state": state.value, "charge": charge.value, "looked_at": seen_digest is not None}
            await work.audit.append_entry("result-released", now, by, audit_job(job) | looked)
        work.after_commit(lambda: ports.notifier.notify(computation_id))
        await work.commit()
    return replace(job, state=state, charge=charge)


async def refuse_result(computation_id: str, reason: str, ports: ReleasePorts, *, by: str = BY_OPERATOR) -> Job:
    """Refuse a held result for good: bytes, manifest and receipt are thrown away, the reason is all that its Spender learns.

    Raises:
        ProblemError: `computation-unknown`, `not-held`.
    """
    now = ports.clock.now()
    shown_reason = printable(reason.strip(), limit=REASON_CHARACTERS)
    detail = "The Earner looked at the result and does not release it" + (f": {shown_reason}" if shown_reason else ".")
    failure = Failure.RESULT_REFUSED
    async with ports.database.unit_of_work() as work:
        job = _require_held(await work.jobs.find_job(computation_id), computation_id)
        await work.jobs.delete_artifacts(computation_id)
        await work.jobs.change_state(
            computation_id,
            JobState.HELD,
            JobState.FAILED,
            finished_at=now,
            removed_at=now,
            failure=failure,
            detail=detail,
            error={"type": failure.value, "message": detail},
            **CLEARED_RESULT,
        )
        await work.outbox.put_event(computation_event(replace(job, state=JobState.FAILED), failure), now)
        if job.mode is Mode.LIVE:
            await work.audit.append_entry("result-refused", now, by, audit_job(job) | {"reason": shown_reason})
        work.after_commit(lambda: ports.notifier.notify(computation_id))
        await work.commit()
    await ports.results.remove_folder(computation_id)
    return replace(job, state=JobState.FAILED, failure=failure)


async def refuse_expired(ports: ReleasePorts) -> int:
    """Refuse every result on which nobody decided for `hold_seconds`; returns how many."""
    limit = ports.clock.now() - ports.hold_seconds
    expired = [job for job in await list_held(ports) if (job.finished_at or job.created_at) < limit]
    for job in expired:
        await refuse_result(job.computation_id, f"nobody decided within {ports.hold_seconds / 86_400:.0f} days.", ports, by=BY_NODE)
    return len(expired)


def _require_held(job: Job | None, computation_id: str) -> Job:
    if job is None:
        raise _unknown(computation_id)
    if job.state is not JobState.HELD:
        raise ProblemError("not-held", f"This computation is {job.state.value}, not held: there is nothing to decide.")
    return job


def _unknown(computation_id: str) -> ProblemError:
    return ProblemError("computation-unknown", f"No computation has the id {printable(computation_id, limit=80)} here.")
