"""A waiting job becomes a result: the lease asked again, a box of its own, and an end that is always written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from pandacea.domain.access import Answer, Denied, Unknown, may_continue
from pandacea.domain.charge import Charge, used
from pandacea.domain.ids import AssetId, LeaseId
from pandacea.domain.job import Job, JobState, Mode
from pandacea.domain.outcome import Failure, Outcome
from pandacea.errors import Broken, Unavailable
from pandacea.flows.books import Turn, Work
from pandacea.flows.finish import ended, finish
from pandacea.flows.live import Feed
from pandacea.flows.ports import CodeStarted, InputTable, RunQuestion, SandboxEvent, SandboxJob, TableFormat
from pandacea.flows.seal import seed_of
from pandacea.flows.submit import job_message
from pandacea.flows.uploads import upload_path
from pandacea.flows.worker import ExecutePorts

log = structlog.get_logger(__name__)

T = TypeVar("T")

MAX_ATTEMPTS: Final = 3
"""Tries of a job in which no user code ran."""
RETRY_SECONDS: Final = (0.5, 1.0, 2.0, 5.0)
"""Between two tries to write an end that the database did not take."""

_WAITED_TOO_LONG: Final = Denied(Failure.QUEUE_DEADLINE, "The job waited longer than the node's queue allows. Submit it again.")
STOPPED: Final = "The node was stopped while this was running; nothing was kept. Submit it again."


async def run_next(ports: ExecutePorts) -> bool:
    """Run the next waiting job to its end. False: none waits, or none may start now."""
    if ports.pause():
        return False
    job, answer = await _claim(ports)
    if job is None:
        return False
    if isinstance(answer, Denied):
        failure = Failure.QUEUE_DEADLINE if answer.code == Failure.QUEUE_DEADLINE else Failure.LEASE_LOST
        await _finish(job, ended(failure, answer.detail), ports)
        return True
    try:
        outcome = await _run(job, ports)
    except Unavailable as problem:  # the database or the disk, before there was a box
        log.warning("job.not_started", computation_id=job.computation_id, problem=problem.detail)
        outcome = None
    except asyncio.CancelledError:
        # The node is stopping: the row says so, and the next start has nothing to guess.
        await asyncio.shield(finish(job, ended(Failure.INTERRUPTED, STOPPED), ports))
        raise
    if outcome is None:
        await _again(job, ports)
    else:
        await _finish(job, outcome, ports)
    return True


async def _finish(job: Job, outcome: Outcome, ports: ExecutePorts) -> None:
    await _insist(job, lambda: finish(job, outcome, ports))


async def _insist(job: Job, write: Callable[[], Awaitable[T]]) -> T:
    """Write what became of a run, however long the database takes: a row left RUNNING would be a job without an end."""
    tries = 0
    while True:
        try:
            return await write()
        except Unavailable as problem:
            pause = RETRY_SECONDS[min(tries, len(RETRY_SECONDS) - 1)]
            log.warning("result.not_written", computation_id=job.computation_id, problem=problem.detail, again_in_seconds=pause)
            tries += 1
            await asyncio.sleep(pause)


async def _claim(ports: ExecutePorts) -> tuple[Job | None, Answer | None]:
    """Take the next job if its lease can be judged now, moving it to RUNNING in the same transaction."""
    now = ports.clock.now()
    async with ports.books.write() as work:
        job, answer = await _first_ready(work, now, ports)
        if job is None:
            return None, None
        if not isinstance(answer, Denied) and not await ports.shelf.has_room(work, ports.limits, job.mode):
            log.warning("queue.waits", reason="no room on disk for another result", results=str(ports.shelf.folder))
            return None, None
        await work.jobs.move(job.computation_id, JobState.PENDING, JobState.RUNNING, started_at=now, attempt=job.attempt + 1)
        running = replace(job, state=JobState.RUNNING, started_at=now, attempt=job.attempt + 1)
        await work.outbox.put(job_message(running), now)
        work.after_commit(lambda: _open_feed(running, ports))
        await work.commit()
    return running, answer


async def _first_ready(work: Work, now: float, ports: ExecutePorts) -> tuple[Job | None, Answer | None]:
    """The first waiting job whose lease can be judged. One whose lease cannot yet waits, and holds up nobody behind it."""
    later: set[LeaseId] = set()
    full = await ports.shelf.full(work, ports.limits)
    while (job := await work.jobs.next_pending(Turn(now, ports.most_running, full, later))) is not None:
        if now > job.queue_deadline:
            return job, _WAITED_TOO_LONG
        answer = await _ask(work, job, ports)
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


async def _run(job: Job, ports: ExecutePorts) -> Outcome | None:
    """Run one job in a box; None: the box failed before any user code ran, so it may be tried again."""
    inputs = []
    for item in job.inputs:
        table = await _table(job, item, ports)
        if table is None or not table.path.is_file():
            log.error("asset.missing", asset_id=item["asset_id"], computation_id=job.computation_id)
            return ended(Failure.DATA_UNREADABLE, "")
        inputs.append(table)
    box = SandboxJob(
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
    return await _Run(job, box, ports).watched()


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
    return None if asset is None else InputTable(asset.asset_id, name, asset.path, TableFormat(asset.format))


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
            await asyncio.wait([running, *waits], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return self._came(running)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            started = self._charging is not None
            if self._lost is not None:
                return ended(Failure.LEASE_LOST, self._lost.detail, code_started=started)
            return ended(Failure.CANCELLED, "Cancelled by its Spender.", code_started=started)
        finally:
            unsubscribe()
            charging = [] if self._charging is None else [self._charging]
            for task in (running, *waits):
                task.cancel()
            await asyncio.gather(running, *waits, *charging, return_exceptions=True)

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
        await _finish(job, ended(Failure.SANDBOX_FAILED, detail), ports)
        return
    if not await _insist(job, lambda: _back(job, ports)):
        await _finish(job, ended(Failure.CANCELLED, "Cancelled by its Spender."), ports)


async def _back(job: Job, ports: ExecutePorts) -> bool:
    """Into the queue again; False when it was cancelled meanwhile."""
    async with ports.books.write() as work:
        row = await work.jobs.get(job.computation_id)
        if row is not None and row.cancel_asked:
            return False
        await work.jobs.move(job.computation_id, JobState.RUNNING, JobState.PENDING, charge=Charge.RESERVED)
        await work.commit()
    return True


__all__ = ["ExecutePorts", "run_next"]
