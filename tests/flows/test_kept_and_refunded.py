"""No sequence of runs and cancellations leaves a Spender with a kept result and the whole price.

The contract pays a price back only while nothing is committed under the lease. So: what a Spender could keep of a run is a free failed
run's few bytes, or its hash is on its way to the chain.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from pandacea.domain.charge import FAILED_RUNS_FREE, FREE_OUTPUT_BYTES
from pandacea.domain.job import JobState
from pandacea.domain.outcome import Artifact, Failure, Outcome, ScriptError
from pandacea.domain.product import LiveOutput, Policy, Release, Rules
from pandacea.errors import ProblemError
from pandacea.flows.cancel import as_spender_sees, cancel_job
from pandacea.flows.execute import run_next_job
from pandacea.flows.live_output import record_shown
from pandacea.flows.release import refuse_result, release_result
from pandacea.flows.submit import submit_job
from pandacea.flows.unit_of_work import Channel
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.unit_of_work import SqlDatabase
from tests.fakes import cached_lease, product
from tests.flows.conftest import World, caller, computation_request, make_world
from tests.flows.test_charging_model import migrated_template
from tests.jobs.stage import Play, Stage

SCALE = float(os.environ.get("PANDACEA_TEST_SCALE", "1"))
TABLE = b"age,dose\n" * 200
COMPUTATIONS = 4
FAILURES = (None, Failure.SCRIPT_ERROR, Failure.TIME_LIMIT, Failure.GUEST_DIED, Failure.SANDBOX_FAILED)


@dataclass(frozen=True)
class Run:
    """One computation, from its request to the last thing that anybody does about it."""

    failure: Failure | None
    leaves_file: bool
    prints: int
    """Bytes of output."""
    is_watched: bool
    """The Spender reads what it writes while it runs."""
    cancelled: str
    """When the Spender cancels: `waiting`, `running`, `ended`, or `no`."""
    is_released: bool
    """What the Earner decides on a held result; before the Spender cancels it."""


RUNS = st.builds(
    Run,
    failure=st.sampled_from(FAILURES) | st.just(Failure.SCRIPT_ERROR),
    leaves_file=st.booleans(),
    prints=st.sampled_from((0, 10, FREE_OUTPUT_BYTES, FREE_OUTPUT_BYTES + 1, len(TABLE))),
    is_watched=st.booleans(),
    cancelled=st.sampled_from(("no", "no", "waiting", "running", "ended")),
    is_released=st.booleans(),
)


@settings(max_examples=max(5, int(12 * SCALE)), deadline=None)
@given(
    runs=st.lists(RUNS, min_size=1, max_size=9),
    release=st.sampled_from((Release.AUTO, Release.HOLD)),
    live=st.sampled_from((LiveOutput.NONE, LiveOutput.FULL)),
)
def test_nobody_keeps_a_result_and_the_price(runs: list[Run], release: Release, live: LiveOutput) -> None:
    """Whatever is run, watched, cancelled, released and refused, in any order: what could be kept is committed, or is next to nothing."""
    folder = Path(tempfile.mkdtemp(prefix="pandacea-kept-"))
    try:
        shutil.copy(migrated_template(), folder / "node.db")
        asyncio.run(_play(runs, release, live, folder))
    finally:
        shutil.rmtree(folder)


async def _play(runs: list[Run], release: Release, live: LiveOutput, folder: Path) -> None:
    engine = await DatabaseEngine.open(f"sqlite+aiosqlite:///{folder / 'node.db'}")
    try:
        world = await make_world(folder, engine)
        rules = Rules(policy=Policy.ANY_CODE, release=release, live_output=live)
        world.catalogue.product = product(folder / "a.csv", rules=rules)
        world.lease_cache.change_lease(cached_lease(max_computations=COMPUTATIONS))
        world.execute.privacy._sandbox = stage = Stage()
        kept = {}
        for number, run in enumerate(runs):
            found = await _run(number, run, world, stage)
            if found is not None:
                kept[found[0]] = found[1]
        async with SqlDatabase(engine).read_session() as session:
            entries = await session.outbox.fetch_due(Channel.CHAIN, world.clock.now(), 1000)
        committed = {entry.message.payload["computation_id"] for entry in entries}
        free = {computation_id: size for computation_id, size in kept.items() if computation_id not in committed}
        assert all(size <= FREE_OUTPUT_BYTES for size in free.values()), free
        assert sum(size > 0 for size in free.values()) <= FAILED_RUNS_FREE
        assert len(committed) <= COMPUTATIONS
    finally:
        await engine.close()


async def _run(number: int, run: Run, world: World, stage: Stage) -> tuple[str, int] | None:
    """Play one computation; return its id and how many bytes its Spender could have kept of it. None: it was not accepted."""
    try:
        accepted = await submit_job(computation_request(), caller(number), world.submit)
    except ProblemError as refused:
        assert refused.code == "lease-used-up"  # every other refusal is a fault of the test
        return None
    computation_id = accepted.job.computation_id
    if run.cancelled == "waiting":
        await _cancel(computation_id, world)
        return computation_id, 0
    worker = asyncio.create_task(run_next_job(world.execute))
    play = await stage.next_play()
    seen = 0
    if run.is_watched:
        play.writes(TABLE[: run.prints])
        feed = world.execute.notifier.find_feed(computation_id)
        if feed is not None and feed.output and await record_shown(computation_id, world.submit.database, world.clock):
            seen = len(feed.output)
    if run.cancelled == "running":
        await _cancel(computation_id, world)
    else:
        _end(play, run)
    await worker
    if await _state(computation_id, world) is JobState.HELD:
        await (
            release_result(computation_id, world.release) if run.is_released else refuse_result(computation_id, "", world.release)
        )
    if run.cancelled == "ended":
        await _cancel(computation_id, world)
    return computation_id, max(seen, await _readable_bytes(computation_id, world))


def _end(play: Play, run: Run) -> None:
    kept: tuple[Artifact, ...] = ()
    if run.leaves_file:
        path = play.job.results_dir / "0"
        path.write_bytes(TABLE)
        kept = (Artifact("copy.csv", path, len(TABLE), hashlib.sha256(TABLE).hexdigest()),)
    raised = ScriptError("ValueError", 1, "m") if run.failure is Failure.SCRIPT_ERROR else None
    play.ends(Outcome(run.failure, "", TABLE[: run.prints], kept, raised, code_started=True))


async def _cancel(computation_id: str, world: World) -> None:
    async with world.submit.database.read_session() as session:
        job = await session.jobs.find_job(computation_id)
    assert job is not None
    try:
        await cancel_job(job, world.submit.database, world.execute.notifier, world.clock, world.submit.results)
    except ProblemError as refused:
        assert refused.code == "not-cancellable"  # it had ended


async def _state(computation_id: str, world: World) -> JobState:
    async with world.submit.database.read_session() as session:
        job = await session.jobs.find_job(computation_id)
    assert job is not None
    return job.state


async def _readable_bytes(computation_id: str, world: World) -> int:
    """Bytes that the routes would give its Spender now."""
    async with world.submit.database.read_session() as session:
        job = await session.jobs.find_job(computation_id)
        artifacts = await session.jobs.list_artifacts(computation_id)
    assert job is not None
    seen = as_spender_sees(job)
    if seen.state not in {JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED}:
        return 0
    return len(seen.output) + sum(item.size for item in artifacts)
