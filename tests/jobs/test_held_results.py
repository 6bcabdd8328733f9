"""`release: hold`: the Earner looks first, and until then nothing of a result leaves, not even that it is there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pandacea.domain.charge import Charge
from pandacea.domain.job import JobState
from pandacea.domain.outcome import Failure, Outcome, ScriptError
from pandacea.domain.product import Release
from pandacea.errors import ProblemError
from pandacea.flows.release import list_held, refuse_result, release_result
from pandacea.flows.retention import RetentionPorts, apply_retention
from pandacea.flows.unit_of_work import Channel
from tests.jobs.conftest import EXECUTE, Served, results

FAILED = Outcome(
    Failure.SCRIPT_ERROR, "", b"Ada is 37\n", script_error=ScriptError("KeyError", 3, "'Ada'"), exit_status=1, code_started=True
)


async def make_held_result(served: Served, outcome: Outcome | None = None) -> str:
    """A computation that left output and an artifact, and waits for the Earner's word."""
    served.rules(release=Release.HOLD)
    computation_id = await served.submit()
    play = await served.stage.next_play()
    play.writes(b"Ada is 37\n")
    play.ends(outcome, **({} if outcome else {"weights__pt": b"1234"}))
    await served.reaches(computation_id, JobState.HELD)
    return computation_id


async def list_commitments(served: Served) -> list[dict[str, Any]]:
    """What waits to be told to the chain."""
    async with served.world.submit.database.read_session() as session:
        return [waiting.message.payload for waiting in await session.outbox.fetch_due(Channel.CHAIN, served.clock.now())]


async def test_a_held_result_reads_as_running_until_its_time_limit_has_passed(served: Served) -> None:
    """How long a script ran is a message it could send: the answer is the same, byte for byte, as while it runs."""
    served.rules(release=Release.HOLD)
    computation_id = await served.submit()
    play = await served.stage.next_play()
    while_running = await served.send("GET", results(computation_id))
    play.ends(weights__pt=b"1234")
    await served.reaches(computation_id, JobState.HELD)
    once_held = await served.send("GET", results(computation_id))
    assert while_running.json == once_held.json == {"computation_id": computation_id, "status": "running"}
    served.clock.added += 61
    later = await served.send("GET", results(computation_id))
    assert later.json == {"computation_id": computation_id, "status": "held"}


async def test_waiting_does_not_tell_when_a_held_run_ended(served: Served) -> None:
    """A long-poll is woken by nothing that a held run does."""
    served.rules(release=Release.HOLD)
    computation_id = await served.submit()
    play = await served.stage.next_play()
    waiting = asyncio.create_task(served.send("GET", results(computation_id, "?wait=2")))
    await asyncio.sleep(0.3)
    play.ends()
    done, _ = await asyncio.wait({waiting}, timeout=1)
    assert not done, "the end of the run answered the poll"
    assert (await waiting).json["status"] == "running"


async def test_nothing_of_a_held_result_leaves(served: Served) -> None:
    """Not by status, artifact, events, lease, nor over the chain; not its size, output, failure or duration."""
    computation_id = await make_held_result(served)
    served.clock.added += 61
    row = await served.row(computation_id)
    told = [
        await served.send("GET", results(computation_id)),
        await served.send("GET", results(computation_id, "/artifacts/weights.pt")),
        await served.send("GET", results(computation_id, "/artifacts/other.pt")),
        await served.send("GET", f"/api/v1/leases/{row.lease_id}"),
    ]
    assert told[1].code == told[2].code == "result-held"
    for answer in told:
        for secret in (b"Ada", b"weights.pt", str(row.result_hash).encode(), str(row.stored_bytes).encode() + b"}"):
            assert secret not in answer.body
    assert await list_commitments(served) == []
    assert row.live_at is None


async def test_live_output_is_nothing_while_results_are_held(served: Served) -> None:
    """A product that says `hold` and `live_output: full` holds."""
    served.rules(release=Release.HOLD)
    computation_id = await served.submit()
    play = await served.stage.next_play()
    async with served.request("GET", results(computation_id, "/events")) as stream:
        play.writes(b"Ada is 37\n")
        play.progresses(3, 7)
        await asyncio.sleep(0.3)
        await cancel_and_check(served, computation_id)
        text = await stream.text()
    assert "Ada" not in text
    assert "progress" not in text
    assert '"status":"cancelled"' in text


async def cancel_and_check(served: Served, computation_id: str) -> None:
    """Cancel, as its Spender."""
    assert (await served.send("DELETE", results(computation_id))).status == 204


async def test_a_request_without_prefer_is_answered_with_a_place_to_ask(served: Served) -> None:
    """Nobody waits in one request for a person's word: 202, and a token to ask with."""
    served.rules(release=Release.HOLD)
    answer = await served.send("POST", EXECUTE, served.body())
    assert answer.status == 202
    asked = await served.send("GET", answer.headers["location"], signer=None, Pandacea_Job_Token=answer.json["job_token"])
    assert asked.json["status"] in {"pending", "running"}


async def test_released_means_read_charged_and_committed(served: Served) -> None:
    """From the release on the result leaves whole; its hash goes on-chain then and not before."""
    computation_id = await make_held_result(served)
    waiting = asyncio.create_task(served.send("GET", results(computation_id, "?wait=20")))
    await asyncio.sleep(0.2)
    job = await release_result(computation_id, served.world.release)
    assert (job.state, job.charge) == (JobState.COMPLETED, Charge.CHARGED)
    answer = await waiting
    assert answer.json["status"] == "completed"
    assert answer.json["results"] == {"output": "Ada is 37\n", "artifacts": {"weights.pt": "MTIzNA=="}}
    assert [payload["result_hash"] for payload in await list_commitments(served)] == [answer.json["result_hash"]]
    with pytest.raises(ProblemError, match="nothing to decide"):
        await release_result(computation_id, served.world.release)


async def test_a_held_failure_is_told_and_paid_from_the_allowance_when_released(served: Served) -> None:
    """While held, the lease's counts do not say that the script failed."""
    computation_id = await make_held_result(served, FAILED)
    assert (await served.row(computation_id)).charge is Charge.CHARGED
    job = await release_result(computation_id, served.world.release)
    assert (job.state, job.charge) == (JobState.FAILED, Charge.ALLOWANCE)
    answer = await served.send("GET", results(computation_id))
    assert answer.json["success"] is False
    assert answer.json["error"]["exception"] == "KeyError"
    assert await list_commitments(served) == []


async def test_refused_means_nothing_but_the_reason(served: Served) -> None:
    """Bytes, manifest and receipt are thrown away; the reason is the Earner's own words, made printable."""
    computation_id = await make_held_result(served)
    await refuse_result(computation_id, "rows of one person \x1b[2J", served.world.release)
    row = await served.row(computation_id)
    assert (row.state, row.failure, row.charge) == (JobState.FAILED, Failure.RESULT_REFUSED, Charge.CHARGED)
    assert (row.output, row.manifest, row.receipt, row.stored_bytes) == (b"", None, None, 0)
    assert not served.world.submit.results.path_of(computation_id).exists()
    answer = await served.send("GET", results(computation_id))
    assert answer.json["status"] == "failed"
    assert "rows of one person \\x1b[2J" in answer.json["reason"]
    assert set(answer.json) == {"computation_id", "status", "reason", "error"}
    assert (await served.send("GET", results(computation_id, "/artifacts/weights.pt"))).code == "result-refused"
    assert await list_commitments(served) == []


async def test_a_held_computation_can_be_cancelled_as_a_running_one(served: Served) -> None:
    """The same answer in both states; what was held is dropped, what it cost stays."""
    computation_id = await make_held_result(served)
    await cancel_and_check(served, computation_id)
    row = await served.row(computation_id)
    assert (row.state, row.charge, row.output, row.receipt) == (JobState.CANCELLED, Charge.CHARGED, b"", None)
    assert not served.world.submit.results.path_of(computation_id).exists()
    with pytest.raises(ProblemError):
        await release_result(computation_id, served.world.release)


async def test_a_result_nobody_decides_on_is_refused(served: Served) -> None:
    """Every job ends, also without a decision."""
    computation_id = await make_held_result(served)
    ports = served.world
    sweeping = RetentionPorts(
        ports.submit.database,
        served.clock,
        ports.submit.results,
        ports.submit.limits,
        ports.uploads,
        ports.release,
        keep_results_seconds=1e6,
    )
    await apply_retention(sweeping)
    assert len(await list_held(ports.release)) == 1
    served.clock.added += 86_401
    await apply_retention(sweeping)
    assert await list_held(ports.release) == []
    assert (await served.row(computation_id)).failure is Failure.RESULT_REFUSED


async def test_what_never_was_the_scripts_word_is_not_held(served: Served) -> None:
    """A run the Spender cancelled tells nothing of the data: it ends at once."""
    served.rules(release=Release.HOLD)
    computation_id = await served.submit()
    await served.stage.next_play()
    await cancel_and_check(served, computation_id)
    answer = await served.send("GET", results(computation_id, "?wait=5"))
    assert answer.json["status"] == "cancelled"
    assert answer.json["reason"] == "Cancelled by its Spender."
