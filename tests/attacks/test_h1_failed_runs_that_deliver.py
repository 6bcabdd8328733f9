"""Runs that end in an exception deliver whole tables, and cost nothing."""

from __future__ import annotations

import asyncio
import hashlib

from pandacea.domain.charge import FREE_OUTPUT_BYTES, Charge
from pandacea.domain.job import JobState
from pandacea.domain.outcome import Artifact, Failure, Outcome, ScriptError
from pandacea.domain.product import LiveOutput, Release
from pandacea.flows.live_output import record_shown
from pandacea.flows.unit_of_work import Channel
from tests.jobs.conftest import Served, results, served
from tests.jobs.stage import Play

__all__ = ["served"]

TABLE = b"age,dose,response\n" * 4_000


def _fails_with_a_copy(play: Play) -> None:
    """What `features.to_csv("copy.csv"); print(features.to_csv()); raise ValueError(features.to_csv())` leaves."""
    path = play.job.results_dir / "0"
    path.write_bytes(TABLE)
    copy = Artifact("copy.csv", path, len(TABLE), hashlib.sha256(TABLE).hexdigest())
    raised = ScriptError("ValueError", 3, TABLE.decode())
    play.ends(Outcome(Failure.SCRIPT_ERROR, "", TABLE, (copy,), raised, exit_status=1, code_started=True))


async def _committed(served: Served) -> set[str]:
    async with served.world.submit.database.read_session() as view:
        return {entry.message.payload["computation_id"] for entry in await view.outbox.fetch_due(Channel.CHAIN, served.clock.now())}


async def test_five_failed_runs_carry_nothing_away(served: Served) -> None:
    """Class, line and 300 bytes each: the allowance is for mending a script. The sixth is paid, and keeps what it left."""
    for place in range(6):
        computation_id = await served.submit()
        _fails_with_a_copy(await served.stage.next_play())
        job = await served.reaches(computation_id, JobState.FAILED)
        answer = await served.send("GET", results(computation_id, "/artifacts/copy.csv"))
        if place < 5:
            assert (job.charge, len(job.output), answer.status) == (Charge.ALLOWANCE, FREE_OUTPUT_BYTES, 404)
            assert len(str(job.error)) < 1_000
            async with asyncio.timeout(20):  # the files go after the row's commit
                while served.world.execute.results.path_of(computation_id).exists():
                    await asyncio.sleep(0.01)
        else:
            assert (job.charge, answer.body) == (Charge.CHARGED, TABLE)
            assert await _committed(served) == {computation_id}


async def test_a_failed_run_that_was_streamed_is_paid(served: Served) -> None:
    """What left while it ran cannot be taken back: more than the allowance gives, and the run is charged."""
    served.rules(live_output=LiveOutput.FULL)
    computation_id = await served.submit()
    play = await served.stage.next_play()
    play.writes(TABLE[:FREE_OUTPUT_BYTES])
    play.writes(TABLE)
    assert await record_shown(computation_id, served.world.submit.database, served.clock)
    _fails_with_a_copy(play)
    job = await served.reaches(computation_id, JobState.FAILED)
    assert job.charge is Charge.CHARGED
    assert await _committed(served) == {computation_id}


async def test_a_held_failed_run_is_reduced_before_the_earner_looks(served: Served) -> None:
    """What is shown to the Earner is what would leave."""
    served.rules(release=Release.HOLD)
    computation_id = await served.submit()
    _fails_with_a_copy(await served.stage.next_play())
    job = await served.reaches(computation_id, JobState.HELD)
    assert len(job.output) == FREE_OUTPUT_BYTES
