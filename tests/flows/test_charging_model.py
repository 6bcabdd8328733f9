"""Charging against a model: parallel submits, runs of every end, live output, cancels, stops, and kills at every step.

The model is the ledger a careful person would keep: what was accepted, whether user code began, whether something left, how it ended.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from pandacea.domain.charge import FAILED_RUNS_FREE, FREE_OUTPUT_BYTES, Charge
from pandacea.domain.ids import AssetId, ComputationId, LeaseKey
from pandacea.domain.job import TERMINAL, Job, JobState, Mode
from pandacea.domain.outcome import Failure, Outcome, ScriptError
from pandacea.domain.product import Mock, Policy, Rehearsal, Release, Rules
from pandacea.errors import ProblemError, Unavailable
from pandacea.flows.accept_job import AcceptedJob
from pandacea.flows.cancel import cancel_job
from pandacea.flows.execute import run_next_job
from pandacea.flows.finish import recover_jobs
from pandacea.flows.live_output import record_shown
from pandacea.flows.rehearse import rehearse
from pandacea.flows.release import refuse_result, release_result
from pandacea.flows.submit import submit_job
from pandacea.flows.unit_of_work import Channel
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from pandacea.store.unit_of_work import SqlDatabase
from tests.fakes import CHAIN_ID, CONTRACT, LEASE_ID, cached_lease, product
from tests.flows.conftest import World, caller, computation_request, make_world
from tests.flows.crashing import CrashingDatabase, Killed
from tests.jobs.stage import Play, Stage
from tests.postgres import PostgresServer

SCALE = float(os.environ.get("PANDACEA_TEST_SCALE", "1"))
MOST = 10
"""Computations of the lease."""
BY_CHAIN = 3
"""Commitments that another database of this Earner may have made under it."""
KEY = LeaseKey(CHAIN_ID, CONTRACT, LEASE_ID)

ENDS: dict[str, Outcome | Exception] = {
    "completed": Outcome(None, "", b"x", exit_status=0, code_started=True),
    "script-error": Outcome(
        Failure.SCRIPT_ERROR, "", b"a,b\n" * 500, script_error=ScriptError("E", 1, "m"), exit_status=1, code_started=True
    ),
    "time-limit": Outcome(Failure.TIME_LIMIT, "", b"", code_started=True),
    "guest-died": Outcome(Failure.GUEST_DIED, "", b"", code_started=True),
    "engine-failed": Outcome(Failure.SANDBOX_FAILED, "", b"", code_started=True),
    "engine-gone": Unavailable("The engine is gone."),
}
BEFORE_CODE: dict[str, Outcome | Exception] = {
    "unreadable": Outcome(Failure.DATA_UNREADABLE, "", b""),
    "no-box": Unavailable("No box."),
}


def fuses(most: int) -> st.SearchStrategy[int | None]:
    """Mostly none: a history needs calm stretches to get anywhere."""
    return st.one_of(st.none(), st.none(), st.none(), st.integers(0, most))


@dataclass
class Entry:
    """What the model knows of one computation. A rehearsal is free from its beginning to its end, whatever happens to it."""

    mock: bool = False
    charge: Charge = Charge.RESERVED
    started: bool = False
    shown: bool = False
    ended: bool = False
    held: bool = False
    failed_script: bool = False
    attempts: int = 0

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, Charge.FREE if name == "charge" and self.mock else value)


class Charging(RuleBasedStateMachine):
    """One lease, one node that may die at any step."""

    postgres: PostgresServer | None = None
    """None: SQLite."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="pandacea-charging-"))
        self.ledger: dict[str, Entry] = {}
        self.running: dict[str, tuple[Play, asyncio.Task[bool]]] = {}
        self.tasks: set[asyncio.Task[bool]] = set()
        self.numbers = itertools.count()
        self.committed = 0
        self.booted = False

    def teardown(self) -> None:
        async def end() -> None:
            await self._drop_tasks()
            await self.database.close()
            if self.postgres is not None:
                await self.postgres.recycle_database(self.database.url.database or "")

        self.runner.run(end())
        self.runner.close()
        shutil.rmtree(self.folder)

    @initialize(hold=st.booleans())
    def begin(self, hold: bool) -> None:
        """Begin with a fresh database."""
        self.release = Release.HOLD if hold else Release.AUTO
        if self.postgres is None:
            shutil.copy(migrated_template(), self.folder / "node.db")
            self.url = f"sqlite+aiosqlite:///{self.folder / 'node.db'}"
        else:
            self.url = self.postgres.url(self.runner.run(self.postgres.create_migrated_database()))
        self.runner.run(self._boot())

    # -- what can happen ------------------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 4), fuse=fuses(9))
    def submits(self, count: int, fuse: int | None) -> None:
        """Several requests at once: as many are accepted as the lease has left."""
        room = MOST - max(self._count(Charge.CHARGED), self.committed) - self._count(Charge.RESERVED)

        async def step() -> None:
            numbers = list(itertools.islice(self.numbers, count))
            asked = [
                asyncio.create_task(submit_job(computation_request(), caller(number), self.world.submit)) for number in numbers
            ]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            accepted = [answer for answer in answers if isinstance(answer, AcceptedJob)]
            for answer in accepted:
                self.ledger[answer.job.computation_id] = Entry()
            if not self.crashing.dead.is_set():
                refused = {answer.code for answer in answers if isinstance(answer, ProblemError)}
                assert len(accepted) == max(min(count, room), 0)
                assert refused <= {"lease-used-up"}
                return
            # No answer came: whether it was accepted is what the database says.
            for job in await self._jobs():
                if job.computation_id not in self.ledger:
                    self.ledger[job.computation_id] = Entry()
                    accepted.append(AcceptedJob(job))
            assert len(accepted) <= max(room, 0)

        self._do(step, fuse)

    @rule(fuse=fuses(9))
    def rehearses(self, fuse: int | None) -> None:
        """On mock rows: accepted however much of the lease is used."""

        async def step() -> None:
            number = next(self.numbers)
            try:
                accepted = await rehearse(computation_request(mode=Mode.MOCK), caller(number), self.world.submit)
                self.ledger[accepted.job.computation_id] = Entry(mock=True)
            except Killed:
                for job in await self._jobs():
                    if job.computation_id not in self.ledger:
                        self.ledger[job.computation_id] = Entry(mock=True)

        self._do(step, fuse)

    @precondition(lambda self: len(self.running) < 3 and self._waiting())
    @rule(starts=st.sampled_from((True, True, True, False)), fuse=fuses(9))
    def a_worker_takes_a_job(self, starts: bool, fuse: int | None) -> None:
        """It reaches the script, or fails before its first byte."""

        async def step() -> None:
            self.stage.starts = starts
            task = asyncio.create_task(run_next_job(self.world.execute))
            self.tasks.add(task)
            play = await self._or_dead(self.stage.plays.get(), task)
            if play is None:
                await self._or_dead(asyncio.wait({task}))
                if not self.crashing.dead.is_set():
                    await self._denied_at_start()
                return
            entry = self.ledger[play.job.computation_id]
            entry.attempts += 1
            if starts:
                entry.started = True
                self.running[play.job.computation_id] = (play, task)
                if not entry.mock and await self._or_dead(self._charged(play.job.computation_id)):
                    entry.charge = Charge.CHARGED
            else:
                await self._ends_before_code(play, task, entry)

        self._do(step, fuse)

    async def _denied_at_start(self) -> None:
        """Commitments that appeared since it was accepted took its place: the lease is asked again at start."""
        left = self._count(Charge.RESERVED) - 1
        for job in await self._jobs():
            entry = self.ledger[job.computation_id]
            if job.state in TERMINAL and not entry.ended:
                assert job.failure is Failure.LEASE_LOST
                assert max(self._count(Charge.CHARGED), self.committed) + left >= MOST
                entry.charge, entry.ended = Charge.RETURNED, True

    async def _ends_before_code(self, play: Play, task: asyncio.Task[bool], entry: Entry) -> None:
        how = "no-box" if entry.attempts % 2 else "unreadable"
        _end(play, BEFORE_CODE[how])
        await asyncio.wait({task})
        if not self.crashing.dead.is_set():
            task.result()  # a worker never ends with an exception
        if not self.crashing.dead.is_set() and (how == "unreadable" or entry.attempts >= 3):
            entry.charge, entry.ended = Charge.RETURNED, True

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0), how=st.sampled_from(sorted(ENDS)), fuse=fuses(6))
    def a_run_ends(self, pick: int, how: str, fuse: int | None) -> None:
        """By itself, by a limit, or by an engine that failed independently of it."""
        computation_id = self._pick(pick)

        async def step() -> None:
            play, task = self.running[computation_id]
            _end(play, ENDS[how])
            await asyncio.wait({task})
            entry = self.ledger[computation_id]
            entry.failed_script = how == "script-error"
            if self.crashing.dead.is_set():
                return
            del self.running[computation_id]
            ours = how in {"engine-failed", "engine-gone"}
            if self.release is Release.HOLD and not ours and not entry.mock:
                entry.held = True
            else:
                entry.charge, entry.ended = self._charge_at_end(entry, interrupted=ours), True

        self._do(step, fuse)

    @precondition(lambda self: not self.running and not self._waiting())
    @rule(how=st.sampled_from(("script-error", "completed")), count=st.integers(1, FAILED_RUNS_FREE + 2))
    def runs_in_a_row(self, how: str, count: int) -> None:
        """One after the other, to the end of the allowance and of the lease."""
        for _ in range(count):
            self.submits(count=1, fuse=None)
            if self._waiting():
                self.a_worker_takes_a_job(starts=True, fuse=None)
            if self.running:
                self.a_run_ends(pick=0, how=how, fuse=None)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0), fuse=fuses(3))
    def something_of_a_run_leaves(self, pick: int, fuse: int | None) -> None:
        """Live output: from here on an interruption gives nothing back."""
        computation_id = self._pick(pick)

        async def step() -> None:
            try:
                self.ledger[computation_id].shown |= await record_shown(computation_id, self.crashing, self.world.clock)
            except Killed:
                shown = [job.live_at is not None for job in await self._jobs() if job.computation_id == computation_id]
                self.ledger[computation_id].shown |= shown[0]

        self._do(step, fuse)

    @precondition(lambda self: any(not entry.ended for entry in self.ledger.values()))
    @rule(pick=st.integers(0), fuse=fuses(8))
    def a_spender_cancels(self, pick: int, fuse: int | None) -> None:
        """Waiting: uncharged; running or held: what it cost stays."""
        living = sorted(key for key, entry in self.ledger.items() if not entry.ended)
        computation_id = living[pick % len(living)]

        async def step() -> None:
            job = next(job for job in await self._jobs() if job.computation_id == computation_id)
            try:
                await cancel_job(job, self.crashing, self.world.execute.notifier, self.world.clock, self.world.submit.results)
            except Killed:
                return
            if computation_id in self.running:
                _, task = self.running[computation_id]
                await self._or_dead(asyncio.wait({task}))
                if self.crashing.dead.is_set():
                    return
                del self.running[computation_id]
            entry = self.ledger[computation_id]
            entry.charge = Charge.CHARGED if entry.started else Charge.RETURNED
            entry.ended = True

        self._do(step, fuse)

    @precondition(lambda self: any(entry.held and not entry.ended for entry in self.ledger.values()))
    @rule(pick=st.integers(0), out=st.booleans(), fuse=fuses(3))
    def the_earner_decides(self, pick: int, out: bool, fuse: int | None) -> None:
        """Released: charged as it ended. Refused: charged."""
        held = sorted(key for key, entry in self.ledger.items() if entry.held and not entry.ended)
        computation_id = held[pick % len(held)]

        async def step() -> None:
            ports = replace(self.world.release, database=self.crashing)
            entry = self.ledger[computation_id]
            charge = self._charge_at_end(entry, interrupted=False) if out else Charge.CHARGED
            try:
                await (release_result(computation_id, ports) if out else refuse_result(computation_id, "", ports))
            except Killed:
                return
            entry.charge, entry.ended = charge, True

        self._do(step, fuse)

    @rule(count=st.integers(0, BY_CHAIN))
    def the_chain_shows_commitments(self, count: int) -> None:
        """Those of another database of this Earner among them."""
        self.committed = max(self.committed, count)
        self._show_lease()

    @precondition(lambda self: self.running)
    @rule()
    def the_node_is_killed(self) -> None:
        """The node dies between two steps."""
        self.crashing.dead.set()
        self.runner.run(self._reboot())

    @precondition(lambda self: self.running)
    @rule(fuse=fuses(6))
    def the_node_is_stopped(self, fuse: int | None) -> None:
        """SIGTERM past its grace: workers are cancelled and write how it ended, if they get that far."""

        async def step() -> None:
            for _, task in self.running.values():
                task.cancel()
            await asyncio.gather(*(task for _, task in self.running.values()), return_exceptions=True)
            if not self.crashing.dead.is_set():
                self.crashing.dead.set()
                for entry in (self.ledger[key] for key in self.running):
                    entry.charge, entry.ended = self._charge_at_end(entry, interrupted=True), True

        self._do(step, fuse)

    # -- what must hold -------------------------------------------------------------------------------------------------------

    @invariant()
    def the_database_says_what_the_model_says(self) -> None:
        """Every charge of every job, at every quiet moment."""
        jobs = {job.computation_id: job for job in self.runner.run(self._jobs())}
        assert set(jobs) == set(self.ledger)
        for computation_id, entry in self.ledger.items():
            job = jobs[ComputationId(computation_id)]
            assert (job.charge, job.state in TERMINAL) == (entry.charge, entry.ended), (job.state, job.failure, entry)
            assert (job.receipt is not None) == (
                entry.charge in {Charge.CHARGED, Charge.ALLOWANCE} and (entry.ended or entry.held) and not _emptied(job)
            )
            if entry.mock:
                assert (job.charge, job.receipt, job.manifest, job.result_hash) == (Charge.FREE, None, None, None)
        assert {key for key, entry in self.ledger.items() if entry.mock}.isdisjoint(self.runner.run(self._committed()))
        self._nobody_keeps_work_and_price(jobs.values())
        assert self._count(Charge.CHARGED) + self._count(Charge.RESERVED) <= MOST
        assert self._count(Charge.ALLOWANCE) <= FAILED_RUNS_FREE

    def _nobody_keeps_work_and_price(self, jobs: Iterable[Job]) -> None:
        """What a Spender may read of a run beyond a failed run's few bytes is on its way to the chain: the price is not refunded."""
        committed = self.runner.run(self._committed())
        for job in jobs:
            readable = job.state in {JobState.COMPLETED, JobState.FAILED} and job.mode is Mode.LIVE and not _emptied(job)
            if readable and (self.runner.run(self._artifacts(job)) or len(job.output) > FREE_OUTPUT_BYTES):
                assert job.computation_id in committed, (job.state, job.charge, job.failure)

    async def _artifacts(self, job: Job) -> int:
        async with SqlDatabase(self.database).read_session() as session:
            return len(await session.jobs.list_artifacts(job.computation_id))

    # -- how ------------------------------------------------------------------------------------------------------------------

    def _do(self, step: Callable[[], Coroutine[Any, Any, None]], fuse: int | None) -> None:
        async def run() -> None:
            self.crashing.fuse = fuse
            await step()
            self.crashing.fuse = None
            if self.crashing.dead.is_set():
                await self._reboot()

        self.runner.run(run())

    async def _boot(self) -> None:
        self.database = await DatabaseEngine.open(self.url)
        world = await make_world(self.folder, self.database, fresh=not self.booted)
        self.booted = True
        rules = Rules(policy=Policy.ANY_CODE, release=self.release, rehearsal=Rehearsal.LEASE)
        plain = product(self.folder / "a.csv", rules=rules)
        asset = plain.assets[AssetId("a")]
        asset = replace(asset, mock=Mock("0" * 64, self.folder / "a.csv", self.folder / "a.csv"))
        world.catalogue.product = replace(plain, assets={**plain.assets, AssetId("a"): asset})
        self.crashing, self.stage = CrashingDatabase(SqlDatabase(self.database)), Stage()
        privacy = world.execute.privacy
        privacy._sandbox = self.stage
        submit_ports = replace(
            world.submit, database=self.crashing, queue=replace(world.submit.queue, max_per_spender=99, max_total=99)
        )
        self.world: World = replace(world, submit=submit_ports, execute=replace(world.execute, database=self.crashing))
        self._show_lease()

    async def _reboot(self) -> None:
        """What a start after a kill does; the model: what was running ends, uncharged unless something of it left."""
        await self._drop_tasks()
        before = {job.computation_id: job for job in await self._jobs()}
        await self.database.close()
        await self._boot()
        await recover_jobs(self.world.execute)
        after = {job.computation_id: job for job in await self._jobs()}
        for computation_id, entry in self.ledger.items():
            self._after_a_kill(entry, before[ComputationId(computation_id)], after[ComputationId(computation_id)])

    def _after_a_kill(self, entry: Entry, before: Job, after: Job) -> None:
        """The row as the kill left it decides which of two things happened; each has one right charge."""
        if entry.ended:
            assert (before.state, before.charge) == (after.state, after.charge)
            return
        if before.state in TERMINAL:  # its end was committed, and the answer was lost
            entry.ended = True
            entry.charge = self._charge_of(entry, before)
        elif before.state is JobState.RUNNING:
            entry.ended = True
            assert after.state is (JobState.CANCELLED if before.cancel_asked else JobState.FAILED)
            if before.cancel_asked:
                # Asked for and durable: it ends as cancelled, and the charge is what had been written of its start.
                entry.charge = Charge.CHARGED if before.charge is Charge.CHARGED else Charge.RETURNED
            else:
                assert after.failure is Failure.INTERRUPTED
                entry.charge = Charge.CHARGED if entry.shown else Charge.RETURNED
        elif before.state is JobState.HELD:
            entry.held, entry.charge = True, Charge.CHARGED
        else:
            assert (before.state, after.state) == (JobState.PENDING, JobState.PENDING)
            entry.charge = Charge.RESERVED

    def _charge_of(self, entry: Entry, row: Job) -> Charge:
        if row.state is JobState.CANCELLED:
            return Charge.CHARGED if entry.started else Charge.RETURNED
        if row.failure is Failure.RESULT_REFUSED:
            return Charge.CHARGED
        interrupted = row.failure in {Failure.INTERRUPTED, Failure.SANDBOX_FAILED}
        return self._charge_at_end(entry, interrupted=interrupted)

    def _charge_at_end(self, entry: Entry, *, interrupted: bool) -> Charge:
        if not entry.started or (interrupted and not entry.shown):
            return Charge.RETURNED
        if entry.failed_script and not interrupted and self._count(Charge.ALLOWANCE) < FAILED_RUNS_FREE:
            return Charge.ALLOWANCE
        return Charge.CHARGED

    async def _drop_tasks(self) -> None:
        self.crashing.dead.set()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.tasks.clear()
        self.running.clear()

    async def _or_dead(self, wanted: Awaitable[Any], task: asyncio.Task[Any] | None = None) -> Any:
        """Wait for something, unless the node dies (or a task ends) first: then None."""
        waits = {asyncio.ensure_future(wanted), asyncio.create_task(self.crashing.dead.wait())}
        both = waits | ({task} if task is not None else set())
        done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        first = next((wait for wait in waits & done if not self.crashing.dead.is_set()), None)
        for wait in waits - done:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        return first.result() if first is not None else None

    async def _charged(self, computation_id: str) -> bool:
        while True:
            if any(job.computation_id == computation_id and job.charge is Charge.CHARGED for job in await self._jobs()):
                return True
            await asyncio.sleep(0.002)

    async def _jobs(self) -> list[Job]:
        """Every row, seen past the fuse."""
        async with SqlDatabase(self.database).read_session() as session:
            ids = await session.jobs.list_in_state(*JobState)
            return [job for computation_id in ids if (job := await session.jobs.find_job(computation_id)) is not None]

    async def _committed(self) -> set[str]:
        """Ids of every computation whose hash is to go on-chain."""
        async with SqlDatabase(self.database).read_session() as session:
            waiting = await session.outbox.fetch_due(Channel.CHAIN, self.world.clock.now(), limit=1000)
        return {one.message.payload["computation_id"] for one in waiting}

    def _waiting(self) -> bool:
        return any(not entry.ended and not entry.held and key not in self.running for key, entry in self.ledger.items())

    def _count(self, charge: Charge) -> int:
        return sum(entry.charge is charge for entry in self.ledger.values())

    def _pick(self, pick: int) -> str:
        return sorted(self.running)[pick % len(self.running)]

    def _show_lease(self) -> None:
        self.world.lease_cache.change_lease(cached_lease(max_computations=MOST, committed_count=self.committed))


def _emptied(job: Job) -> bool:
    return job.failure is Failure.RESULT_REFUSED or (job.state is JobState.CANCELLED and job.removed_at is not None)


def _end(play: Play, how: Outcome | Exception) -> None:
    if isinstance(how, Exception):
        play.end.set_exception(how)
    else:
        play.end.set_result(how)


def migrated_template() -> Path:
    """A migrated, empty database, made once."""
    global _made  # noqa: PLW0603  # made once for all examples
    if _made is None:
        folder = Path(tempfile.mkdtemp(prefix="charging-template-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)  # it is inside the folder that the whole run removes

        async def make() -> None:
            database = await DatabaseEngine.open(f"sqlite+aiosqlite:///{folder / 'node.db'}")
            await upgrade(database)
            await database.close()

        asyncio.run(make())
        _made = folder / "node.db"
    return _made


_made: Path | None = None

ATTEMPTS = 4


@pytest.mark.timeout(900)
def test_charges_follow_the_model_through_crashes_and_cancels() -> None:
    """Whatever is submitted at once, cancelled, killed at any write or committed on-chain: each job is charged as the rules say."""
    charge_by_the_model(Charging, max(5, int(50 * SCALE)))


@pytest.mark.timeout(900)
def test_charges_follow_the_model_on_postgresql(postgres: PostgresServer) -> None:
    """The same law where the rows are on a server."""
    kind = type("ChargingOnPostgreSQL", (Charging,), {"postgres": postgres})
    charge_by_the_model(kind, max(3, int(5 * SCALE)))


def charge_by_the_model(kind: type[Charging], examples: int) -> None:
    """Play so many random histories."""
    wanted = settings(
        max_examples=examples,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    for attempt in range(1, ATTEMPTS + 1):
        try:
            run_state_machine_as_test(kind, settings=wanted)
        except FlakyStrategyDefinition:
            # Tasks of one event loop do not interleave alike in every replay, so a history may offer other steps the second time.
            # That says nothing of the charges: a wrong charge is an assertion, and is never caught here.
            if attempt == ATTEMPTS:
                raise
        else:
            return
