"""Notice at start that an older database was put back, and end what it would otherwise do a second time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import structlog

from pandacea.domain.audit_entries import BY_NODE
from pandacea.domain.charge import Charge
from pandacea.domain.job import Job, JobState
from pandacea.domain.outcome import Failure
from pandacea.errors import Broken
from pandacea.files.generation import GenerationFile
from pandacea.flows.messages import computation_event
from pandacea.flows.ports import Clock
from pandacea.flows.unit_of_work import Database, Generation

log = structlog.get_logger(__name__)

PUT_BACK_DETAIL: Final = (
    "The node's database was put back from a backup made before this ended, so the node cannot tell whether it ran; nothing is "
    "charged for it here. Look on-chain whether its result was committed, and submit it again."
)


@dataclass(frozen=True, slots=True)
class RestorePorts:
    """What the start looks at before it serves."""

    database: Database
    clock: Clock
    file: GenerationFile
    clock_skew_seconds: int
    """By how much a Spender's clock may be ahead: a request received before the restore may be dated so much later."""


async def begin_generation(ports: RestorePorts) -> int:
    """Begin this start's generation; returns from which Unix time on signed requests are accepted.

    A database whose copy is older than the file's, or that knows starts and finds no file, was put back. What it shows as waiting or
    running may have run and been signed since, and it knows no nonce that was used since: the former ends, the latter are refused.
    Killed half-way, the next start finds the same and does the rest.

    Raises:
        Broken: the file cannot be read or written.
        Unavailable: the database does not answer.
    """
    try:
        in_file = ports.file.read()
    except (OSError, ValueError) as problem:
        raise Broken(
            f"{ports.file.path} cannot be read as a number ({problem}). Delete it: the node then treats its database as one that was "
            "put back from a backup."
        ) from problem
    async with ports.database.read_session() as session:
        stored = await session.generation.load()
    put_back = stored.number < in_file if in_file is not None else stored.number > 0
    ended = await _end_open_jobs(ports) if put_back else 0
    floor = int(ports.clock.now()) + 1 + ports.clock_skew_seconds if put_back else stored.requests_since
    number = max(stored.number, in_file or 0) + 1
    async with ports.database.unit_of_work() as work:
        await work.generation.save(Generation(number, floor))
        if put_back:
            members = {"database_generation": stored.number, "file_generation": in_file, "jobs_ended": ended}
            await work.audit.append_entry("database-put-back", ports.clock.now(), BY_NODE, members)
        await work.commit()
    try:
        await ports.file.raise_to(number)
    except OSError as problem:
        raise Broken(
            f"{ports.file.path} cannot be written ({problem}). Free space on its disk, or correct its rights."
        ) from problem
    if put_back:
        log.warning(
            "database.put_back",
            database_generation=stored.number,
            file_generation=in_file,
            jobs_ended=ended,
            requests_accepted_from=floor,
            meaning="the database is older than the node's last run; what waited or ran in it is ended and not run again",
        )
    return floor


async def _end_open_jobs(ports: RestorePorts) -> int:
    """End every job that waits or runs in the database as interrupted: uncharged, and never signed."""
    async with ports.database.read_session() as session:
        found = await session.jobs.list_in_state(JobState.PENDING, JobState.RUNNING)
    for computation_id in found:
        async with ports.database.unit_of_work() as work:
            job = await work.jobs.find_job(computation_id)
            if job is None:
                continue
            await work.jobs.change_state(computation_id, job.state, JobState.FAILED, **_interrupted(job, ports.clock.now()))
            event = computation_event(replace(job, state=JobState.FAILED), Failure.INTERRUPTED)
            await work.outbox.put_event(event, ports.clock.now())
            await work.commit()
    return len(found)


def _interrupted(job: Job, now: float) -> dict[str, Any]:
    return {
        "charge": job.charge_for_mode(Charge.RETURNED),
        "finished_at": now,
        "failure": Failure.INTERRUPTED,
        "detail": PUT_BACK_DETAIL,
        "error": {"type": Failure.INTERRUPTED.value, "message": PUT_BACK_DETAIL},
    }
