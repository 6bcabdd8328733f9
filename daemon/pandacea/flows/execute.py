"""A waiting job becomes a result: the lease asked again, the box, the manifest, and one transaction that says it all."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pandacea.domain.access import Answer, Denied, Unknown, may_continue
from pandacea.domain.charge import Charge, at_end, used
from pandacea.domain.ids import AssetId, LeaseId
from pandacea.domain.job import Job, JobState
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Failure, Outcome
from pandacea.domain.product import Release
from pandacea.errors import Unavailable
from pandacea.flows.ports import (
    Books,
    Catalogue,
    Channel,
    Clock,
    CodeStarted,
    InputTable,
    KeptArtifact,
    LeaseBook,
    Message,
    PrivacyService,
    ProductBook,
    RunQuestion,
    SandboxEvent,
    SandboxJob,
    TableFormat,
    Work,
)
from pandacea.flows.seal import Sealer, seed_of
from pandacea.flows.submit import job_message

MAX_ATTEMPTS = 3
"""Tries of a job in which no user code ran."""


@dataclass(frozen=True, slots=True)
class ExecutePorts:
    """What `run_next` works with."""

    books: Books
    book: LeaseBook
    catalogue: Catalogue
    products: ProductBook
    privacy: PrivacyService
    sealer: Sealer
    clock: Clock
    limits: Limits
    threads: int
    results_dir: Path
    post_results: bool
    ended: Callable[[str], None]
    """Called with a computation id when its row reached a terminal state, or HELD."""
    cancelled: Callable[[str], asyncio.Event]
    """The event that is set when the Spender asked to cancel this computation."""


async def recover(ports: ExecutePorts) -> None:
    """End what a stopped node left RUNNING: its box is gone, nothing of it was released, so nothing is charged."""
    async with ports.books.read() as view:
        left = await view.jobs.in_state(JobState.RUNNING)
    for job in left:
        detail = "The node stopped while this was running; nothing was released and nothing charged. Submit it again."
        await _end(job, _outcome(Failure.INTERRUPTED, detail), ports, charge=Charge.RETURNED)
        shutil.rmtree(ports.results_dir / job.computation_id, ignore_errors=True)


async def run_next(ports: ExecutePorts) -> bool:
    """Run the next waiting job to its end. False: none waits, or the node cannot know now."""
    job, answer = await _claim(ports)
    if job is None:
        return False
    if isinstance(answer, Denied):
        failure = Failure.QUEUE_DEADLINE if answer.code == Failure.QUEUE_DEADLINE else Failure.LEASE_LOST
        await _end(job, _outcome(failure, answer.detail), ports)
        return True
    folder = ports.results_dir / job.computation_id
    try:
        outcome = await _run(job, folder, ports)
    except Unavailable as problem:
        await _again(job, str(problem), ports)
        return True
    except asyncio.CancelledError:
        # The node is stopping: the row says so, and the next start has nothing to guess.
        detail = "The node was stopped while this was running; nothing was released and nothing charged. Submit it again."
        await asyncio.shield(_end(job, _outcome(Failure.INTERRUPTED, detail), ports, charge=Charge.RETURNED))
        raise
    await _end(job, outcome, ports)
    return True


async def _claim(ports: ExecutePorts) -> tuple[Job | None, Answer | None]:
    """Take the next job if its lease can be judged now, moving it to RUNNING in the same transaction."""
    now = ports.clock.now()
    async with ports.books.write() as work:
        job = await work.jobs.next_pending()
        if job is None:
            return None, None
        if now > job.queue_deadline:
            answer: Answer = Denied(Failure.QUEUE_DEADLINE, "The job waited longer than the node's queue allows. Submit it again.")
        else:
            answer = await _ask(work, job, ports)
        if isinstance(answer, Unknown):
            return None, None
        await work.jobs.move(job.computation_id, JobState.PENDING, JobState.RUNNING, started_at=now, attempt=job.attempt + 1)
        running = replace(job, state=JobState.RUNNING, started_at=now, attempt=job.attempt + 1)
        await work.outbox.put(job_message(running), now)
        await work.commit()
    return running, answer


async def _ask(work: Work, job: Job, ports: ExecutePorts) -> Answer:
    counts = await work.jobs.counted(job.key)
    lease = ports.book.lease(job.lease_id)
    reserved = counts.get(Charge.RESERVED, 0) - (1 if job.charge is Charge.RESERVED else 0)
    assets = tuple(AssetId(item["asset_id"]) for item in job.inputs)
    charged = used(counts, lease.committed_count if lease else 0)
    question = RunQuestion(job.lease_id, job.spender, assets, None, charged, reserved, ports.limits.time_seconds)
    return ports.privacy.verify_lease(question)


async def _run(job: Job, folder: Path, ports: ExecutePorts) -> Outcome:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    inputs = []
    for item in job.inputs:
        asset = await ports.products.asset_by_commitment(item["commitment"])
        if asset is None or not asset.path.is_file():
            detail = f"The asset {item['asset_id']} is no longer readable on the node; nothing was charged. Tell the Earner."
            return _outcome(Failure.DATA_UNREADABLE, detail)
        inputs.append(InputTable(asset.asset_id, item["variable_name"], asset.path, TableFormat(asset.format)))
    box = SandboxJob(
        computation_id=job.computation_id,
        code=job.code.encode(),
        params=job.params.encode(),
        inputs=tuple(inputs),
        uploads={},
        limits=ports.limits,
        seed=seed_of(job),
        threads=ports.threads,
        results=folder,
    )
    return await _watched(job, box, ports)


async def _watched(job: Job, box: SandboxJob, ports: ExecutePorts) -> Outcome:
    """Run the box; end it when the lease is lost or the Spender cancels."""
    charging: list[asyncio.Task[None]] = []

    def on_event(event: SandboxEvent) -> None:
        if isinstance(event, CodeStarted):
            charging.append(asyncio.create_task(_charge(job, ports)))

    stop = asyncio.Event()
    reason: list[Outcome] = []

    def look(changed: LeaseId | None) -> None:
        if changed not in {None, job.lease_id}:
            return
        answer = may_continue(ports.book.lease(job.lease_id), ports.book.standing())
        if isinstance(answer, Denied):
            reason.append(_outcome(Failure.LEASE_LOST, answer.detail))
            stop.set()

    unsubscribe = ports.book.on_change(look)
    running = asyncio.create_task(ports.privacy.execute_computation(box, on_event))
    waits = [asyncio.create_task(stop.wait()), asyncio.create_task(ports.cancelled(job.computation_id).wait())]
    try:
        await asyncio.wait([running, *waits], return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        outcome = reason[0] if reason else _outcome(Failure.CANCELLED, "Cancelled by its Spender.")
        return replace(outcome, code_started=bool(charging))
    finally:
        unsubscribe()
        for task in [running, *waits]:
            task.cancel()
        await asyncio.gather(running, *waits, *charging, return_exceptions=True)


async def _charge(job: Job, ports: ExecutePorts) -> None:
    async with ports.books.write() as work:
        await work.jobs.charge(job.computation_id)
        await work.commit()


async def _again(job: Job, detail: str, ports: ExecutePorts) -> None:
    """No user code ran: back into the queue, a few times."""
    if job.attempt >= MAX_ATTEMPTS:
        await _end(job, _outcome(Failure.SANDBOX_FAILED, f"{detail} Nothing was charged."), ports)
        return
    async with ports.books.write() as work:
        await work.jobs.move(job.computation_id, JobState.RUNNING, JobState.PENDING, detail=detail, charge=Charge.RESERVED)
        await work.commit()


async def _end(job: Job, outcome: Outcome, ports: ExecutePorts, charge: Charge | None = None) -> None:
    """Write the result: state, charge, manifest, receipt, artifacts, and what the world is to be told, in one transaction."""
    now = ports.clock.now()
    async with ports.books.write() as work:
        counts = await work.jobs.counted(job.key)
        lease = ports.book.lease(job.lease_id)
        if charge is None:
            charge = at_end(outcome.failure, code_started=outcome.code_started, failed_runs=counts.get(Charge.ALLOWANCE, 0))
        index = used(counts, lease.committed_count if lease else 0) + (0 if job.charge is Charge.CHARGED else 1)
        state = _state(job, outcome)
        values: dict[str, Any] = {}
        if charge in {Charge.CHARGED, Charge.ALLOWANCE}:
            sealed = ports.sealer.seal(job, outcome, index=min(index, job.max_computations), finished_at=now)
            values = {"manifest": sealed.manifest, "result_hash": sealed.result_hash, "receipt": sealed.receipt}
            if ports.post_results and charge is Charge.CHARGED:
                await work.outbox.put(_commitment(job, sealed.result_hash), now)
        moved = await work.jobs.move(
            job.computation_id,
            JobState.RUNNING,
            state,
            charge=charge,
            finished_at=now,
            failure=outcome.failure,
            detail=_detail(outcome),
            error=_error(job, outcome),
            output=outcome.output,
            truncated=outcome.truncated,
            **values,
        )
        if not moved:
            return  # somebody else ended it
        kept = [KeptArtifact(item.name, item.path.name, item.size, item.sha256) for item in outcome.artifacts]
        await work.jobs.add_artifacts(job.computation_id, kept)
        await work.outbox.put(job_message(replace(job, state=state), failure=outcome.failure), now)
        work.after_commit(lambda: ports.ended(job.computation_id))
        await work.commit()


def _state(job: Job, outcome: Outcome) -> JobState:
    if outcome.failure is Failure.CANCELLED:
        return JobState.CANCELLED
    if job.release == Release.HOLD and outcome.code_started:
        return JobState.HELD
    return JobState.COMPLETED if outcome.failure is None else JobState.FAILED


def _error(job: Job, outcome: Outcome) -> dict[str, Any] | None:
    if outcome.failure is None:
        return None
    error: dict[str, Any] = {"type": outcome.failure.value, "message": _detail(outcome)}
    if outcome.script_error is not None:
        error |= {"exception": outcome.script_error.type, "line": outcome.script_error.line}
        if job.show_messages:
            error["exception_message"] = outcome.script_error.message
    return error


def _detail(outcome: Outcome) -> str:
    """One sentence; never the exception's own message, which may quote a row."""
    raised = outcome.script_error
    if raised is None:
        return outcome.detail
    where = "" if raised.line is None else f" in line {raised.line}"
    return f"The script raised {raised.type}{where}."


def _commitment(job: Job, result_hash: str) -> Message:
    payload = {"lease_id": job.lease_id, "computation_id": job.computation_id, "result_hash": result_hash}
    return Message(Channel.CHAIN, f"commit:{job.computation_id}", "commitResult", payload)


def _outcome(failure: Failure, detail: str) -> Outcome:
    return Outcome(failure, detail, b"")


__all__ = ["ExecutePorts", "recover", "run_next"]
