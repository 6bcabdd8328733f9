"""Run a waiting job to its end: the lease verified again, a sandbox of its own, and an end that is always written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

import structlog

from pandacea.domain.access import AccessDecision, Denied, Unknown, may_continue
from pandacea.domain.audit_entries import audit_run
from pandacea.domain.charge import Charge, count_use
from pandacea.domain.ids import AssetId, LeaseId
from pandacea.domain.job import Job, JobState, Mode
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Failure, Outcome, not_stored_detail
from pandacea.errors import Broken, Unavailable
from pandacea.files.upload_files import UploadFiles
from pandacea.flows.cancel import CANCELLED_DETAIL
from pandacea.flows.finish import COMMITTED_DETAIL, FinishPorts, empty_outcome, end_run, finish_run, retry_write
from pandacea.flows.live_output import LiveFeed
from pandacea.flows.messages import computation_event
from pandacea.flows.ports import Catalogue, CodeStarted, InputTable, JobPhase, SandboxEvent, SandboxJob, TableFormat
from pandacea.flows.privacy import AccessRequest, PrivacyService
from pandacea.flows.result_quota import find_shortage, list_full_spenders
from pandacea.flows.sign_result import seed_of
from pandacea.flows.unit_of_work import ProductStore, StartCriteria, UnitOfWork

log = structlog.get_logger(__name__)

MAX_ATTEMPTS: Final = 3
"""Attempts of a job in which no user code ran."""
PREPARE_SECONDS: Final = 120.0
"""How long database and disk may take to say what a sandbox is given."""
SANDBOX_OVERHEAD_SECONDS: Final = 300.0
"""Beyond the time limit: making a sandbox, and collecting its result. The sandbox has bounds of its own within this one."""
STOP_SECONDS: Final = 30.0
"""How long a cancelled run may take to let go of its sandbox."""

_WAITED_TOO_LONG: Final = Denied(Failure.QUEUE_DEADLINE, "The job waited longer than the node's queue allows. Submit it again.")
_COMMITTED: Final = Denied(Failure.INTERRUPTED.value, COMMITTED_DETAIL)
_OWN_FAILURES: Final = {code.value: code for code in (Failure.QUEUE_DEADLINE, Failure.SANDBOX_FAILED, Failure.INTERRUPTED)}
"""Denials that are a failure of their own; any other is a lease that was lost."""
_NOT_BEGUN: Final = (
    "The node failed before this script began, and its log says why; nothing was charged. Try again later, or tell the Earner."
)
_NOT_UNDERSTOOD: Final = "The sandbox ended in a way the node could not make sense of; this counts as the script's doing."
_STUCK: Final = "The node did not get this run to its end in time; nothing of it was kept. Try again later, or tell the Earner."
STOPPED_DETAIL: Final = "The node was stopped while this was running; nothing was kept. Submit it again."


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutePorts(FinishPorts):
    """What a worker runs a waiting job with, to its result."""

    catalogue: Catalogue
    products: ProductStore
    privacy: PrivacyService
    limits: Limits
    threads: int
    """Threads a script's libraries may use."""
    upload_files: UploadFiles
    max_running_per_spender: int = 64
    """Jobs of one Spender that may run at one time."""
    check_lease: Callable[[LeaseId], Awaitable[None]] = lambda _lease_id: asyncio.sleep(0)
    """Asks the contract for a lease once before a run on real rows starts; the lease cache denies what it denies when this returns."""
    is_stopping: Callable[[], bool] = lambda: False
    """Whether the node stops, so that no new run may start."""
    observe_phase: Callable[[JobPhase, float], None] = lambda _phase, _seconds: None
    """Called with the seconds that a job spent in a phase, when it leaves the phase."""


async def run_next_job(ports: ExecutePorts, modes: Collection[Mode] = tuple(Mode)) -> bool:
    """Run the next waiting job of these modes to its end. False: none waits, or none may start now.

    Whatever one run raises ends that run and not the worker; it counts as the script's doing once the script had begun.
    """
    if ports.is_stopping():
        return False
    job, decision, generation = await _claim_job(ports, modes)
    if job is None:
        return False
    if isinstance(decision, Denied):
        failure = _OWN_FAILURES.get(decision.code, Failure.LEASE_LOST)
        await end_run(job, empty_outcome(failure, decision.detail), ports)
        return True
    assert job.started_at is not None
    if job.attempt == 1:
        ports.observe_phase(JobPhase.WAITING, job.started_at - job.created_at)
    ran: _RunEnd | None
    try:
        await _note_generation(generation, ports)
        ran = await _run(job, ports)
    except Unavailable as problem:  # the database or its disk, before there was a sandbox
        log.warning("job.not_started", computation_id=job.computation_id, reason=problem.detail)
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
        return True
    ended_at = ports.clock.now()
    ports.observe_phase(JobPhase.RUNNING, ended_at - job.started_at)
    await end_run(job, ran.outcome, ports, ran.sandbox_job)
    ports.observe_phase(JobPhase.FINISHING, ports.clock.now() - ended_at)
    return True


async def _claim_job(ports: ExecutePorts, modes: Collection[Mode]) -> tuple[Job | None, AccessDecision | None, int]:
    """Move the next job whose lease can be judged now to RUNNING, in the transaction that chose it.

    The last member is the generation that this run begins, 0 where nothing is run that anybody signs for.
    """
    now = ports.clock.now()
    async with ports.database.unit_of_work() as work:
        job, decision = await _find_ready(work, now, ports, modes)
        if job is None:
            return None, None, 0
        generation = 0
        if job.mode is Mode.LIVE and await work.commitments.is_committed(job.lease_key, job.computation_id):
            decision = _COMMITTED
        if not isinstance(decision, Denied):
            shortage = await find_shortage(work, ports.results, ports.limits, job.mode)
            if shortage is not None:
                log.warning("queue.waits_for_disk", reason=shortage)
                return None, None, 0
            generation = await work.generation.advance() if job.mode is Mode.LIVE else 0
        await work.jobs.change_state(
            job.computation_id, JobState.PENDING, JobState.RUNNING, started_at=now, attempt=job.attempt + 1
        )
        running = replace(job, state=JobState.RUNNING, started_at=now, attempt=job.attempt + 1)
        await work.outbox.put_event(computation_event(running), now)
        if job.mode is Mode.LIVE and not isinstance(decision, Denied):
            await work.audit.append_entry("run-started", now, job.spender, audit_run(running))
        work.after_commit(lambda: _open_feed(running, ports))
        await work.commit()
    return running, decision, generation


async def _note_generation(generation: int, ports: ExecutePorts) -> None:
    """Write a run's generation beside the database before the run begins: a copy of the database made earlier is older from now on.

    Raises:
        Unavailable: the disk did not take it.
    """
    try:
        await ports.generation_file.raise_to(generation)
    except OSError as problem:
        raise Unavailable(f"the node's disk did not take {ports.generation_file.path.name} ({problem})") from problem


async def _find_ready(
    work: UnitOfWork, now: float, ports: ExecutePorts, modes: Collection[Mode]
) -> tuple[Job | None, AccessDecision | None]:
    """Find the first waiting job whose lease can be judged. One whose lease cannot yet waits, and holds up nobody behind it."""
    skipped: set[LeaseId] = set()
    full = await list_full_spenders(work, ports.results, ports.limits)
    criteria = StartCriteria(now, ports.max_running_per_spender, full, skipped, modes)
    while (job := await work.jobs.find_next_pending(criteria)) is not None:
        if now > job.queue_deadline:
            return job, _WAITED_TOO_LONG
        try:
            decision = await _verify_lease(work, job, ports)
        except Unavailable:
            raise
        except Exception:
            log.exception("job.not_judged", computation_id=job.computation_id)
            return job, Denied(Failure.SANDBOX_FAILED.value, _NOT_BEGUN)
        if not _may_resolve_itself(decision):
            return job, decision
        if not ports.leases.chain_status().is_ready:
            break  # the same holds for every lease
        skipped.add(job.lease_id)
    return None, None


def _may_resolve_itself(decision: AccessDecision) -> bool:
    """Return whether waiting may help: the proof is under way, or a reorg moved the approval to a newer block."""
    return isinstance(decision, Unknown) or (isinstance(decision, Denied) and decision.code == "approval-unconfirmed")


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
    use = count_use(counts, lease.committed_count if lease else 0)
    return ports.privacy.verify_lease(
        AccessRequest(
            lease_id=job.lease_id,
            caller=job.spender,
            assets=tuple(AssetId(item["asset_id"]) for item in job.inputs),
            product_version=None,
            used=use.used,
            reserved=use.reserved - (1 if job.charge is Charge.RESERVED else 0),
            time_limit=ports.limits.time_seconds,
        )
    )


def _verify_continue(job: Job, ports: ExecutePorts) -> AccessDecision:
    return may_continue(ports.leases.find_lease(job.lease_id), ports.leases.chain_status())


@dataclass(frozen=True, slots=True)
class _RunEnd:
    """How a run ended, and what its sandbox was given; None: nothing, so nothing can be signed."""

    outcome: Outcome
    sandbox_job: SandboxJob | None = None


async def _run(job: Job, ports: ExecutePorts) -> _RunEnd | None:
    """Run one job in a sandbox; None: the sandbox failed before any user code ran, so the job may be tried again."""
    try:
        async with asyncio.timeout(PREPARE_SECONDS):
            sandbox_job = await _prepare(job, ports)
    except TimeoutError as stuck:
        raise Unavailable(f"the node's database or disk did not answer within {PREPARE_SECONDS:g} seconds") from stuck
    except OSError as problem:
        log.exception("run.no_results_folder", computation_id=job.computation_id)
        return _RunEnd(empty_outcome(Failure.SANDBOX_FAILED, not_stored_detail(problem)))
    if sandbox_job is None:
        return _RunEnd(empty_outcome(Failure.DATA_UNREADABLE, ""))
    if job.mode is not Mode.MOCK:
        await ports.check_lease(job.lease_id)
        if isinstance(decision := _verify_continue(job, ports), Denied):
            return _RunEnd(empty_outcome(Failure.LEASE_LOST, decision.detail))
    outcome = await _Run(job, sandbox_job, ports).supervise()
    return None if outcome is None else _RunEnd(outcome, sandbox_job)


async def _prepare(job: Job, ports: ExecutePorts) -> SandboxJob | None:
    """Collect what the sandbox is given; None: an asset's table is missing."""
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
        uploads={name: ports.upload_files.path_of(job.spender, digest) for name, digest in job.uploads.items()},
        limits=ports.limits.of_rehearsals() if job.mode is Mode.MOCK else ports.limits,
        seed=seed_of(job),
        threads=ports.threads,
        results_dir=await ports.results.create_folder(job.computation_id),
        capture_stderr=job.show_messages,
    )


async def _input_table(job: Job, item: dict[str, str], ports: ExecutePorts) -> InputTable | None:
    """Find the leased rows at the version that was accepted; in a rehearsal, the mock rows. None: they are not there."""
    asset_id, name = AssetId(item["asset_id"]), item["variable_name"]
    if job.mode is Mode.MOCK:
        product = ports.catalogue.find_by_id(job.product_id)
        offered = None if product is None else product.assets.get(asset_id)
        if offered is None or offered.mock is None:
            return None
        return InputTable(asset_id, name, offered.mock.table, TableFormat.ARROW)
    asset = await ports.products.find_asset_by_commitment(item["commitment"])
    if asset is None:
        return None
    return InputTable(asset.asset_id, name, asset.path, TableFormat(asset.format), asset.commitment)


class _Run:
    """One run, and everything that may end it early."""

    def __init__(self, job: Job, sandbox_job: SandboxJob, ports: ExecutePorts) -> None:
        self._job, self._sandbox_job, self._ports = job, sandbox_job, ports
        self._charging: asyncio.Task[None] | None = None
        self._lost: Denied | None = None
        self._stop = asyncio.Event()

    async def supervise(self) -> Outcome | None:
        """Run the sandbox job; end it when the lease is lost, the Spender cancels, or it takes longer than a run can.

        None: the sandbox failed before any user code ran.
        """
        ports, computation_id = self._ports, self._job.computation_id
        unsubscribe = ports.leases.subscribe(self._check_lease)
        self._check_lease(self._job.lease_id)  # it may have been lost since the job was claimed
        running = asyncio.create_task(ports.privacy.execute_computation(self._sandbox_job, self._on_event))
        cancelled = ports.notifier.cancel_event(computation_id)
        waits = [asyncio.create_task(self._stop.wait()), asyncio.create_task(cancelled.wait())]
        try:
            longest = self._sandbox_job.limits.time_seconds + SANDBOX_OVERHEAD_SECONDS
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
                    log.warning("charge.not_written", computation_id=computation_id, reason=repr(problem))

    def _collect(self, running: asyncio.Task[Outcome]) -> Outcome | None:
        """Return the outcome of a run that ended by itself; None: the sandbox failed before any user code ran."""
        try:
            outcome = running.result()
        except Unavailable as problem:
            log.warning("sandbox.failed", computation_id=self._job.computation_id, reason=problem.detail)
            if self._charging is None:
                return None
            return empty_outcome(
                Failure.SANDBOX_FAILED, "The sandbox failed while the script ran; try again later.", code_started=True
            )
        except Broken as problem:
            log.error(  # noqa: TRY400 - a sentence for the operator, no traceback
                "sandbox.files_not_opened", computation_id=self._job.computation_id, reason=problem.detail
            )
            return empty_outcome(Failure.DATA_UNREADABLE, "", code_started=self._charging is not None)
        except Exception:
            started = self._charging is not None
            log.exception("run.failed", computation_id=self._job.computation_id, code_started=started)
            if started:
                return empty_outcome(Failure.GUEST_DIED, _NOT_UNDERSTOOD, code_started=True)
            return empty_outcome(Failure.SANDBOX_FAILED, _NOT_BEGUN)
        if outcome.failure is Failure.DATA_UNREADABLE:
            log.error("asset.unreadable", computation_id=self._job.computation_id, reason=outcome.detail)
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
        """Stop the run if its lease does not allow it any more; called back after each change of a lease."""
        if changed not in {None, self._job.lease_id}:
            return
        decision = _verify_continue(self._job, self._ports)
        if isinstance(decision, Denied):
            self._lost = decision
            self._stop.set()


async def _retry_job(job: Job, ports: ExecutePorts) -> None:
    """Put a job in which no user code ran back into the queue, or end it after `MAX_ATTEMPTS`."""
    if job.attempt >= MAX_ATTEMPTS:
        detail = "The node could not make a sandbox for this script; nothing was charged. Try again later, or tell the Earner."
        await end_run(job, empty_outcome(Failure.SANDBOX_FAILED, detail), ports)
        return
    if not await retry_write(job, lambda: _requeue(job, ports)):
        await end_run(job, empty_outcome(Failure.CANCELLED, CANCELLED_DETAIL), ports)


async def _requeue(job: Job, ports: ExecutePorts) -> bool:
    """Move a job back to PENDING; False when it was cancelled meanwhile."""
    async with ports.database.unit_of_work() as work:
        row = await work.jobs.find_job(job.computation_id)
        if row is not None and row.cancel_asked:
            return False
        await work.jobs.change_state(job.computation_id, JobState.RUNNING, JobState.PENDING, charge=job.charge)
        await work.commit()
    return True
