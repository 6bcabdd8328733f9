"""A waiting job becomes a result: the lease asked again, a box of its own, and an end that is always written."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

import structlog

from pandacea.domain.access import Answer, Denied, Unknown, may_continue
from pandacea.domain.charge import Charge, used
from pandacea.domain.ids import AssetId, LeaseId
from pandacea.domain.job import Job, JobState, Mode
from pandacea.domain.outcome import Failure, Outcome, not_stored
from pandacea.errors import Broken, Unavailable
from pandacea.flows.books import Turn, Work
from pandacea.flows.cancel import CANCELLED
from pandacea.flows.conclude import conclude, insist
from pandacea.flows.finish import ended, finish
from pandacea.flows.live import Feed
from pandacea.flows.ports import CodeStarted, InputTable, RunQuestion, SandboxEvent, SandboxJob, TableFormat
from pandacea.flows.seal import seed_of
from pandacea.flows.submit import job_message
from pandacea.flows.uploads import upload_path
from pandacea.flows.worker import ExecutePorts

log = structlog.get_logger(__name__)

MAX_ATTEMPTS: Final = 3
"""Tries of a job in which no user code ran."""
PREPARING_SECONDS: Final = 120.0
"""So long the database and the disk may take to say what a box is given."""
MAKING_AND_COLLECTING_SECONDS: Final = 300.0
"""Beyond the time limit: making a box, and the moments after its end. The sandbox has bounds of its own within this one."""
ENDING_SECONDS: Final = 30.0
"""So long a cancelled run may take to let go of its box."""

_WAITED_TOO_LONG: Final = Denied(Failure.QUEUE_DEADLINE, "The job waited longer than the node's queue allows. Submit it again.")
_DENIALS: Final = {code.value: code for code in (Failure.QUEUE_DEADLINE, Failure.SANDBOX_FAILED)}
"""Answers that are their own failure; any other is a lease that was lost."""
_NOT_BEGUN: Final = (
    "The node failed before this script began, and its log says why; nothing was charged. Try again later, or tell the Earner."
)
_NOT_UNDERSTOOD: Final = "The box ended in a way the node could not make sense of; this counts as the script's doing."
_STUCK: Final = "The node did not get this run to its end in time; nothing of it was kept. Try again later, or tell the Earner."
STOPPED: Final = "The node was stopped while this was running; nothing was kept. Submit it again."


async def run_next(ports: ExecutePorts, modes: Collection[Mode] = tuple(Mode)) -> bool:
    """Run the next waiting job of these modes to its end. False: none waits, or none may start now.

    Whatever one run raises ends that run, and no worker: it is the script's own doing as soon as the script held the box.
    """
    if ports.pause():
        return False
    job, answer = await _claim(ports, modes)
    if job is None:
        return False
    if isinstance(answer, Denied):
        failure = _DENIALS.get(answer.code, Failure.LEASE_LOST)
        await conclude(job, ended(failure, answer.detail), ports)
        return True
    ran: _Ran | None
    try:
        ran = await _run(job, ports)
    except Unavailable as problem:  # the database, before there was a box
        log.warning("job.not_started", computation_id=job.computation_id, problem=problem.detail)
        ran = None
    except asyncio.CancelledError:
        # The node is stopping: the row says so, and the next start has nothing to guess.
        await asyncio.shield(finish(job, ended(Failure.INTERRUPTED, STOPPED), ports))
        raise
    except Exception:
        log.exception("run.not_begun", computation_id=job.computation_id)
        ran = _Ran(ended(Failure.SANDBOX_FAILED, _NOT_BEGUN))
    if ran is None:
        await _again(job, ports)
    else:
        await conclude(job, ran.outcome, ports, ran.box)
    return True


async def _claim(ports: ExecutePorts, modes: Collection[Mode]) -> tuple[Job | None, Answer | None]:
    """Take the next job if its lease can be judged now, moving it to RUNNING in the same transaction."""
    now = ports.clock.now()
    async with ports.books.write() as work:
        job, answer = await _first_ready(work, now, ports, modes)
        if job is None:
            return None, None
        if not isinstance(answer, Denied) and (short := await ports.shelf.shortage(work, ports.limits, job.mode)) is not None:
            log.warning("queue.waits", reason="no room on disk for another result", because=short)
            return None, None
        await work.jobs.move(job.computation_id, JobState.PENDING, JobState.RUNNING, started_at=now, attempt=job.attempt + 1)
        running = replace(job, state=JobState.RUNNING, started_at=now, attempt=job.attempt + 1)
        await work.outbox.put(job_message(running), now)
        work.after_commit(lambda: _open_feed(running, ports))
        await work.commit()
    return running, answer


async def _first_ready(work: Work, now: float, ports: ExecutePorts, modes: Collection[Mode]) -> tuple[Job | None, Answer | None]:
    """The first waiting job whose lease can be judged. One whose lease cannot yet waits, and holds up nobody behind it."""
    later: set[LeaseId] = set()
    full = await ports.shelf.full(work, ports.limits)
    while (job := await work.jobs.next_pending(Turn(now, ports.most_running, full, later, modes))) is not None:
        if now > job.queue_deadline:
            return job, _WAITED_TOO_LONG
        try:
            answer = await _ask(work, job, ports)
        except Unavailable:
            raise
        except Exception:
            log.exception("job.not_judged", computation_id=job.computation_id)
            return job, Denied(Failure.SANDBOX_FAILED.value, _NOT_BEGUN)
        if not _may_change_by_itself(answer):
            return job, answer
        if not ports.book.standing().trusted:
            break  # the same holds for every lease
        later.add(job.lease_id)
    return None, None


def _may_change_by_itself(answer: Answer) -> bool:
    """Its proof is under way, or a reorg moved its approval to a newer block: that is no reason to fail what was accepted."""
    return isinstance(answer, Unknown) or (isinstance(answer, Denied) and answer.code == "approval-unconfirmed")


def _open_feed(job: Job, ports: ExecutePorts) -> None:
    def wake() -> None:
        ports.watch.changed(job.computation_id)

    ports.watch.opened(job.computation_id, Feed(job.attempt, job.shows, wake))
    wake()


async def _ask(work: Work, job: Job, ports: ExecutePorts) -> Answer:
    if job.mode is Mode.MOCK:
        return _goes_on(job, ports)
    counts = await work.jobs.counted(job.key)
    lease = ports.book.lease(job.lease_id)
    reserved = counts.get(Charge.RESERVED, 0) - (1 if job.charge is Charge.RESERVED else 0)
    assets = tuple(AssetId(item["asset_id"]) for item in job.inputs)
    charged = used(counts, lease.committed_count if lease else 0)
    question = RunQuestion(job.lease_id, job.spender, assets, None, charged, reserved, ports.limits.time_seconds)
    return ports.privacy.verify_lease(question)


def _goes_on(job: Job, ports: ExecutePorts) -> Answer:
    """May an accepted job go on?"""
    return may_continue(ports.book.lease(job.lease_id), ports.book.standing())


@dataclass(frozen=True, slots=True)
class _Ran:
    """How a run ended, and what its box was given; None: nothing, so nothing can be signed."""

    outcome: Outcome
    box: SandboxJob | None = None


async def _run(job: Job, ports: ExecutePorts) -> _Ran | None:
    """Run one job in a box; None: the box failed before any user code ran, so it may be tried again."""
    try:
        async with asyncio.timeout(PREPARING_SECONDS):
            box = await _prepare(job, ports)
    except TimeoutError as stuck:
        raise Unavailable(f"the node's database or disk did not answer within {PREPARING_SECONDS:g} seconds") from stuck
    except OSError as problem:
        log.exception("run.no_results_folder", computation_id=job.computation_id)
        return _Ran(ended(Failure.SANDBOX_FAILED, not_stored(problem)))
    if box is None:
        return _Ran(ended(Failure.DATA_UNREADABLE, ""))
    outcome = await _Run(job, box, ports).watched()
    return None if outcome is None else _Ran(outcome, box)


async def _prepare(job: Job, ports: ExecutePorts) -> SandboxJob | None:
    """What the box is given; None: an asset is not there."""
    inputs = []
    for item in job.inputs:
        table = await _table(job, item, ports)
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
        results=await ports.shelf.make(job.computation_id),
        stderr=job.show_messages,
    )


async def _table(job: Job, item: dict[str, str], ports: ExecutePorts) -> InputTable | None:
    """The leased rows at the version that was accepted; in a rehearsal, the mock rows."""
    asset_id, name = AssetId(item["asset_id"]), item["variable_name"]
    if job.mode is Mode.MOCK:
        product = ports.catalogue.by_id(job.product_id)
        offered = None if product is None else product.assets.get(asset_id)
        return (
            None if offered is None or offered.mock is None else InputTable(asset_id, name, offered.mock.table, TableFormat.ARROW)
        )
    asset = await ports.products.asset_by_commitment(item["commitment"])
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

    async def watched(self) -> Outcome | None:
        """Run the box; end it when the lease is lost or the Spender cancels."""
        ports, computation_id = self._ports, self._job.computation_id
        unsubscribe = ports.book.on_change(self._look)
        self._look(self._job.lease_id)  # it may have been lost since the job was taken
        running = asyncio.create_task(ports.privacy.execute_computation(self._box, self._on_event))
        waits = [asyncio.create_task(self._stop.wait()), asyncio.create_task(ports.watch.cancelled(computation_id).wait())]
        try:
            longest = self._box.limits.time_seconds + MAKING_AND_COLLECTING_SECONDS
            await asyncio.wait([running, *waits], return_when=asyncio.FIRST_COMPLETED, timeout=longest)
            if running.done():
                return self._came(running)
            running.cancel()
            await asyncio.wait([running], timeout=ENDING_SECONDS)
            started = self._charging is not None
            if not any(task.done() for task in waits):
                log.error("run.stuck", computation_id=computation_id, seconds=longest)
                return ended(Failure.SANDBOX_FAILED, _STUCK, code_started=started)
            if self._lost is not None:
                return ended(Failure.LEASE_LOST, self._lost.detail, code_started=started)
            return ended(Failure.CANCELLED, CANCELLED, code_started=started)
        finally:
            unsubscribe()
            charging = [] if self._charging is None else [self._charging]
            for task in (running, *waits):
                task.cancel()
            await asyncio.wait([running, *waits, *charging], timeout=ENDING_SECONDS)
            for task in charging:
                if task.done() and not task.cancelled() and (problem := task.exception()) is not None:
                    # The end of the run charges it all the same: only a node that dies before would have needed this row.
                    log.warning("charge.not_written", computation_id=computation_id, problem=repr(problem))

    def _came(self, running: asyncio.Task[Outcome]) -> Outcome | None:
        try:
            outcome = running.result()
        except Unavailable as problem:
            log.warning("box.failed", computation_id=self._job.computation_id, problem=problem.detail)
            if self._charging is None:
                return None
            return ended(Failure.SANDBOX_FAILED, "The box failed while the script ran; try again later.", code_started=True)
        except Broken as problem:
            log.error("box.not_given_its_files", computation_id=self._job.computation_id, problem=problem.detail)  # noqa: TRY400
            return ended(Failure.DATA_UNREADABLE, "", code_started=self._charging is not None)
        except Exception:
            started = self._charging is not None
            log.exception("run.failed", computation_id=self._job.computation_id, script_had_begun=started)
            if started:
                return ended(Failure.GUEST_DIED, _NOT_UNDERSTOOD, code_started=True)
            return ended(Failure.SANDBOX_FAILED, _NOT_BEGUN)
        if outcome.failure is Failure.DATA_UNREADABLE:
            log.error("asset.unreadable", computation_id=self._job.computation_id, problem=outcome.detail)
        return outcome

    def _on_event(self, event: SandboxEvent) -> None:
        if isinstance(event, CodeStarted):
            self._charging = asyncio.create_task(self._charge())
            return
        feed = self._ports.watch.feed(self._job.computation_id)
        if feed is not None:
            feed.take(event)

    async def _charge(self) -> None:
        async with self._ports.books.write() as work:
            await work.jobs.charge(self._job.computation_id)
            await work.commit()

    def _look(self, changed: LeaseId | None) -> None:
        if changed not in {None, self._job.lease_id}:
            return
        answer = _goes_on(self._job, self._ports)
        if isinstance(answer, Denied):
            self._lost = answer
            self._stop.set()


async def _again(job: Job, ports: ExecutePorts) -> None:
    """No user code ran: back into the queue, a few times."""
    if job.attempt >= MAX_ATTEMPTS:
        detail = "The node could not make a box for this script; nothing was charged. Try again later, or tell the Earner."
        await conclude(job, ended(Failure.SANDBOX_FAILED, detail), ports)
        return
    if not await insist(job, lambda: _back(job, ports)):
        await conclude(job, ended(Failure.CANCELLED, CANCELLED), ports)


async def _back(job: Job, ports: ExecutePorts) -> bool:
    """Into the queue again; False when it was cancelled meanwhile."""
    async with ports.books.write() as work:
        row = await work.jobs.get(job.computation_id)
        if row is not None and row.cancel_asked:
            return False
        await work.jobs.move(job.computation_id, JobState.RUNNING, JobState.PENDING, charge=job.charge)
        await work.commit()
    return True


__all__ = ["ExecutePorts", "run_next"]
