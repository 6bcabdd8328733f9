"""A waiting job becomes a result: the lease asked again, a box of its own, and an end that is always written."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import structlog

from pandacea.domain.access import AccessDecision, Denied, Unknown, may_continue
from pandacea.domain.charge import Charge, count_used
from pandacea.domain.ids import AssetId, LeaseId
from pandacea.domain.job import Job, JobState, Mode
from pandacea.domain.outcome import Failure, Outcome, not_stored_detail
from pandacea.errors import Broken, Unavailable
from pandacea.flows.cancel import CANCELLED_DETAIL
from pandacea.flows.end_run import end_run, retry_write
from pandacea.flows.finish import empty_outcome, finish_run
from pandacea.flows.live_output import LiveFeed
from pandacea.flows.ports import AccessRequest, CodeStarted, InputTable, SandboxEvent, SandboxJob, TableFormat
from pandacea.flows.sign_result import seed_of
from pandacea.flows.submit import job_message
from pandacea.flows.unit_of_work import StartCriteria, UnitOfWork
from pandacea.flows.uploads import upload_path
from pandacea.flows.worker import ExecutePorts

log = structlog.get_logger(__name__)

MAX_ATTEMPTS: Final = 3
"""Tries of a job in which no user code ran."""
PREPARE_SECONDS: Final = 120.0
"""So long the database and the disk may take to say what a box is given."""
SANDBOX_OVERHEAD_SECONDS: Final = 300.0
"""Beyond the time limit: making a box, and the moments after its end. The sandbox has bounds of its own within this one."""
STOP_SECONDS: Final = 30.0
"""So long a cancelled run may take to let go of its box."""

_WAITED_TOO_LONG: Final = Denied(Failure.QUEUE_DEADLINE, "The job waited longer than the node's queue allows. Submit it again.")
_DENIALS: Final = {code.value: code for code in (Failure.QUEUE_DEADLINE, Failure.SANDBOX_FAILED)}
"""Answers that are their own failure; any other is a lease that was lost."""
_NOT_BEGUN: Final = (
    "The node failed before this script began, and its log says why; nothing was charged. Try again later, or tell the Earner."
)
_NOT_UNDERSTOOD: Final = "The box ended in a way the node could not make sense of; this counts as the script's doing."
_STUCK: Final = "The node did not get this run to its end in time; nothing of it was kept. Try again later, or tell the Earner."
STOPPED_DETAIL: Final = "The node was stopped while this was running; nothing was kept. Submit it again."


async def run_next_job(ports: ExecutePorts, modes: Collection[Mode] = tuple(Mode)) -> bool:
    """Run the next waiting job of these modes to its end. False: none waits, or none may start now.

    Whatever one run raises ends that run, and no worker: it is the script's own doing as soon as the script held the box.
    """
    if ports.is_stopping():
        return False
    job, answer = await _claim_job(ports, modes)
    if job is None:
        return False
    if isinstance(answer, Denied):
        failure = _DENIALS.get(answer.code, Failure.LEASE_LOST)
        await end_run(job, empty_outcome(failure, answer.detail), ports)
        return True
    ran: _RunEnd | None
    try:
        ran = await _run(job, ports)
    except Unavailable as problem:  # the database, before there was a box
        log.warning("job.not_started", computation_id=job.computation_id, problem=problem.detail)
        ran = None
    except asyncio.CancelledError:
        # The node is stopping: the row says so, and the next start has nothing to guess.
        await asyncio.shield(finish_run(job, empty_outcome(Failure.INTERRUPTED, STOPPED_DETAIL), ports))
        raise
    except Exception:
        log.exception("run.not_begun", computation_id=job.computation_id)
        ran = _RunEnd(empty_outcome(Failure.SANDBOX_FAILED, _NOT_BEGUN))
    if ran is None:
        await _retry_job(job, ports)
    else:
        await end_run(job, ran.outcome, ports, ran.box)
    return True


async def _claim_job(ports: ExecutePorts, modes: Collection[Mode]) -> tuple[Job | None, AccessDecision | None]:
    """Take the next job if its lease can be judged now, moving it to RUNNING in the same transaction."""
    now = ports.clock.now()
    async with ports.database.unit_of_work() as work:
        job, answer = await _find_ready(work, now, ports, modes)
        if job is None:
            return None, None
        if (
            not isinstance(answer, Denied)
            and (short := await ports.results.find_shortage(work, ports.limits, job.mode)) is not None
        ):
            log.warning("queue.waits", reason="no room on disk for another result", because=short)
            return None, None
        await work.jobs.change_state(
            job.computation_id, JobState.PENDING, JobState.RUNNING, started_at=now, attempt=job.attempt + 1
        )
        running = replace(job, state=JobState.RUNNING, started_at=now, attempt=job.attempt + 1)
        await work.outbox.put_message(job_message(running), now)
        work.after_commit(lambda: _open_feed(running, ports))
        await work.commit()
    return running, answer


async def _find_ready(
    work: UnitOfWork, now: float, ports: ExecutePorts, modes: Collection[Mode]
) -> tuple[Job | None, AccessDecision | None]:
    """The first waiting job whose lease can be judged. One whose lease cannot yet waits, and holds up nobody behind it."""
    later: set[LeaseId] = set()
    full = await ports.results.list_full_spenders(work, ports.limits)
    while (
        job := await work.jobs.find_next_pending(StartCriteria(now, ports.max_running_per_spender, full, later, modes))
    ) is not None:
        if now > job.queue_deadline:
            return job, _WAITED_TOO_LONG
        try:
            answer = await _verify_lease(work, job, ports)
        except Unavailable:
            raise
        except Exception:
            log.exception("job.not_judged", computation_id=job.computation_id)
            return job, Denied(Failure.SANDBOX_FAILED.value, _NOT_BEGUN)
        if not _may_resolve_itself(answer):
            return job, answer
        if not ports.leases.chain_status().is_ready:
            break  # the same holds for every lease
        later.add(job.lease_id)
    return None, None


def _may_resolve_itself(answer: AccessDecision) -> bool:
    """Its proof is under way, or a reorg moved its approval to a newer block: that is no reason to fail what was accepted."""
    return isinstance(answer, Unknown) or (isinstance(answer, Denied) and answer.code == "approval-unconfirmed")


def _open_feed(job: Job, ports: ExecutePorts) -> None:
    def wake() -> None:
        ports.notifier.notify(job.computation_id)

    ports.notifier.open_feed(job.computation_id, LiveFeed(job.attempt, job.effective_live_output, wake))
    wake()


async def _verify_lease(work: UnitOfWork, job: Job, ports: ExecutePorts) -> AccessDecision:
    if job.mode is Mode.MOCK:
        return _verify_continue(job, ports)
    counts = await work.jobs.count_by_charge(job.lease_key)
    lease = ports.leases.find_lease(job.lease_id)
    reserved = counts.get(Charge.RESERVED, 0) - (1 if job.charge is Charge.RESERVED else 0)
    assets = tuple(AssetId(item["asset_id"]) for item in job.inputs)
    charged = count_used(counts, lease.committed_count if lease else 0)
    question = AccessRequest(job.lease_id, job.spender, assets, None, charged, reserved, ports.limits.time_seconds)
    return ports.privacy.verify_lease(question)


def _verify_continue(job: Job, ports: ExecutePorts) -> AccessDecision:
    """May an accepted job go on?"""
    return may_continue(ports.leases.find_lease(job.lease_id), ports.leases.chain_status())


@dataclass(frozen=True, slots=True)
class _RunEnd:
    """How a run ended, and what its box was given; None: nothing, so nothing can be signed."""

    outcome: Outcome
    box: SandboxJob | None = None


async def _run(job: Job, ports: ExecutePorts) -> _RunEnd | None:
    """Run one job in a box; None: the box failed before any user code ran, so it may be tried again."""
    try:
        async with asyncio.timeout(PREPARE_SECONDS):
            box = await _prepare(job, ports)
    except TimeoutError as stuck:
        raise Unavailable(f"the node's database or disk did not answer within {PREPARE_SECONDS:g} seconds") from stuck
    except OSError as problem:
        log.exception("run.no_results_folder", computation_id=job.computation_id)
        return _RunEnd(empty_outcome(Failure.SANDBOX_FAILED, not_stored_detail(problem)))
    if box is None:
        return _RunEnd(empty_outcome(Failure.DATA_UNREADABLE, ""))
    outcome = await _Run(job, box, ports).supervise()
    return None if outcome is None else _RunEnd(outcome, box)


async def _prepare(job: Job, ports: ExecutePorts) -> SandboxJob | None:
    """What the box is given; None: an asset is not there."""
    inputs = []
    for item in job.inputs:
        table = await _input_table(job, item, ports)
        if table is None or not table.path.is_file():
            log.error("asset.missing", asset_id=item["asset_id"], computation_id=job.computation_id)
            return None
        inputs.append(table)
    return SandboxJob(
        computation_id=job.computation_id,
        code=job.code.encode(),
        params=job.params.encode(),
        inputs=tuple(inputs),
        uploads={name: upload_path(ports.uploads_dir, job.spender, digest) for name, digest in job.uploads.items()},
        limits=ports.limits.of_rehearsals() if job.mode is Mode.MOCK else ports.limits,
        seed=seed_of(job),
        threads=ports.threads,
        results_dir=await ports.results.create_folder(job.computation_id),
        capture_stderr=job.show_messages,
    )


async def _input_table(job: Job, item: dict[str, str], ports: ExecutePorts) -> InputTable | None:
    """The leased rows at the version that was accepted; in a rehearsal, the mock rows."""
    asset_id, name = AssetId(item["asset_id"]), item["variable_name"]
    if job.mode is Mode.MOCK:
        product = ports.catalogue.find_by_id(job.product_id)
        offered = None if product is None else product.assets.get(asset_id)
        return (
            None if offered is None or offered.mock is None else InputTable(asset_id, name, offered.mock.table, TableFormat.ARROW)
        )
    asset = await ports.products.find_asset_by_commitment(item["commitment"])
    if asset is None:
        return None
    return InputTable(asset.asset_id, name, asset.path, TableFormat(asset.format), asset.commitment)


class _Run:
    """One run, and everything that may end it early."""

    def __init__(self, job: Job, box: SandboxJob, ports: ExecutePorts) -> None:
        self._job, self._box, self._ports = job, box, ports
        self._charging: asyncio.Task[None] | None = None
        self._lost: Denied | None = None
        self._stop = asyncio.Event()

    async def supervise(self) -> Outcome | None:
        """Run the box; end it when the lease is lost or the Spender cancels."""
        ports, computation_id = self._ports, self._job.computation_id
        unsubscribe = ports.leases.subscribe(self._check_lease)
        self._check_lease(self._job.lease_id)  # it may have been lost since the job was taken
        running = asyncio.create_task(ports.privacy.execute_computation(self._box, self._on_event))
        waits = [asyncio.create_task(self._stop.wait()), asyncio.create_task(ports.notifier.cancel_event(computation_id).wait())]
        try:
            longest = self._box.limits.time_seconds + SANDBOX_OVERHEAD_SECONDS
            await asyncio.wait([running, *waits], return_when=asyncio.FIRST_COMPLETED, timeout=longest)
            if running.done():
                return self._collect(running)
            running.cancel()
            await asyncio.wait([running], timeout=STOP_SECONDS)
            started = self._charging is not None
            if not any(task.done() for task in waits):
                log.error("run.stuck", computation_id=computation_id, seconds=longest)
                return empty_outcome(Failure.SANDBOX_FAILED, _STUCK, code_started=started)
            if self._lost is not None:
                return empty_outcome(Failure.LEASE_LOST, self._lost.detail, code_started=started)
            return empty_outcome(Failure.CANCELLED, CANCELLED_DETAIL, code_started=started)
        finally:
            unsubscribe()
            charging = [] if self._charging is None else [self._charging]
            for task in (running, *waits):
                task.cancel()
            await asyncio.wait([running, *waits, *charging], timeout=STOP_SECONDS)
            for task in charging:
                if task.done() and not task.cancelled() and (problem := task.exception()) is not None:
                    # The end of the run charges it all the same: only a node that dies before would have needed this row.
                    log.warning("charge.not_written", computation_id=computation_id, problem=repr(problem))

    def _collect(self, running: asyncio.Task[Outcome]) -> Outcome | None:
        try:
            outcome = running.result()
        except Unavailable as problem:
            log.warning("box.failed", computation_id=self._job.computation_id, problem=problem.detail)
            if self._charging is None:
                return None
            return empty_outcome(Failure.SANDBOX_FAILED, "The box failed while the script ran; try again later.", code_started=True)
        except Broken as problem:
            log.error("box.not_given_its_files", computation_id=self._job.computation_id, problem=problem.detail)  # noqa: TRY400
            return empty_outcome(Failure.DATA_UNREADABLE, "", code_started=self._charging is not None)
        except Exception:
            started = self._charging is not None
            log.exception("run.failed", computation_id=self._job.computation_id, script_had_begun=started)
            if started:
                return empty_outcome(Failure.GUEST_DIED, _NOT_UNDERSTOOD, code_started=True)
            return empty_outcome(Failure.SANDBOX_FAILED, _NOT_BEGUN)
        if outcome.failure is Failure.DATA_UNREADABLE:
            log.error("asset.unreadable", computation_id=self._job.computation_id, problem=outcome.detail)
        return outcome

    def _on_event(self, event: SandboxEvent) -> None:
        if isinstance(event, CodeStarted):
            self._charging = asyncio.create_task(self._charge())
            return
        feed = self._ports.notifier.find_feed(self._job.computation_id)
        if feed is not None:
            feed.record_event(event)

    async def _charge(self) -> None:
        async with self._ports.database.unit_of_work() as work:
            await work.jobs.mark_charged(self._job.computation_id)
            await work.commit()

    def _check_lease(self, changed: LeaseId | None) -> None:
        if changed not in {None, self._job.lease_id}:
            return
        answer = _verify_continue(self._job, self._ports)
        if isinstance(answer, Denied):
            self._lost = answer
            self._stop.set()


async def _retry_job(job: Job, ports: ExecutePorts) -> None:
    """No user code ran: back into the queue, a few times."""
    if job.attempt >= MAX_ATTEMPTS:
        detail = "The node could not make a box for this script; nothing was charged. Try again later, or tell the Earner."
        await end_run(job, empty_outcome(Failure.SANDBOX_FAILED, detail), ports)
        return
    if not await retry_write(job, lambda: _requeue(job, ports)):
        await end_run(job, empty_outcome(Failure.CANCELLED, CANCELLED_DETAIL), ports)


async def _requeue(job: Job, ports: ExecutePorts) -> bool:
    """Into the queue again; False when it was cancelled meanwhile."""
    async with ports.database.unit_of_work() as work:
        row = await work.jobs.find_job(job.computation_id)
        if row is not None and row.cancel_asked:
            return False
        await work.jobs.change_state(job.computation_id, JobState.RUNNING, JobState.PENDING, charge=job.charge)
        await work.commit()
    return True


__all__ = ["ExecutePorts", "run_next_job"]
