"""Retries, tokens, queues and room: what a request gets besides its computation."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from pandacea.domain.charge import Charge
from pandacea.domain.ids import LeaseId
from pandacea.domain.job import JobState
from pandacea.domain.outcome import Failure, Outcome
from pandacea.errors import Unavailable
from tests.fakes import cached_lease
from tests.jobs.conftest import EXECUTE, OTHER, SPENDER, Served, results


async def test_a_seed_reaches_the_sandbox(served: Served) -> None:
    """The largest one as well; what is no seed is refused with its place."""
    waiting = asyncio.create_task(served.send("POST", EXECUTE, served.body(seed=2**32 - 1)))
    play = await served.stage.next_play()
    assert play.job.seed == 2**32 - 1
    play.ends()
    assert (await waiting).json["manifest"]["sandbox"]["seed"] == 2**32 - 1
    refused = await served.send("POST", EXECUTE, served.body(seed=2**32))
    assert (refused.status, refused.code, refused.json["pointer"]) == (400, "bad-seed", "/seed")


async def test_a_retry_with_its_key_gets_the_computation_it_made(served: Served) -> None:
    """One computation, however often it is asked for; the second token replaces the first, which may never have come."""
    first = await served.send("POST", EXECUTE, served.body(), Prefer="respond-async", Idempotency_Key="k")
    again = await served.send("POST", EXECUTE, served.body(), Prefer="respond-async", Idempotency_Key="k")
    assert first.json["computation_id"] == again.json["computation_id"]
    path = results(first.json["computation_id"])
    lost = await served.send("GET", path, signer=None, Pandacea_Job_Token=first.json["job_token"])
    held = await served.send("GET", path, signer=None, Pandacea_Job_Token=again.json["job_token"])
    assert (lost.code, held.status) == ("job-token-invalid", 200)


async def test_a_retry_is_answered_though_the_lease_allows_no_new_one(served: Served) -> None:
    """Its computation was accepted: used up or expired since then changes nothing."""
    served.lease(max_computations=1)
    waiting = asyncio.create_task(served.send("POST", EXECUTE, served.body(), Idempotency_Key="k"))
    play = await served.stage.next_play()
    again = asyncio.create_task(served.send("POST", EXECUTE, served.body(), Idempotency_Key="k"))
    await asyncio.sleep(0.1)
    play.ends()
    assert (await waiting).body == (await again).body
    served.lease(max_computations=1, expires_at=1)
    assert (await served.send("POST", EXECUTE, served.body(), Idempotency_Key="k")).status == 200
    assert (await served.send("POST", EXECUTE, served.body(), Idempotency_Key="new")).code == "lease-used-up"


async def test_a_key_belongs_to_one_lease_one_body_one_spender(served: Served) -> None:
    """The same words from another spender or under another lease are another request; with another body they are a mistake."""
    second, third = LeaseId("0x" + "2e" * 32), LeaseId("0x" + "3e" * 32)
    served.world.lease_cache.leases[second] = cached_lease(lease_id=second, spender=SPENDER.address.lower())
    served.world.lease_cache.leases[third] = cached_lease(lease_id=third, spender=OTHER.address.lower())
    options = {"Prefer": "respond-async", "Idempotency_Key": "k"}
    ids = {
        (await served.send("POST", EXECUTE, served.body(), **options)).json["computation_id"],
        (await served.send("POST", EXECUTE, served.body(lease_id=second), **options)).json["computation_id"],
        (await served.send("POST", EXECUTE, served.body(lease_id=third), signer=OTHER, **options)).json["computation_id"],
    }
    assert len(ids) == 3
    assert (await served.send("POST", EXECUTE, served.body(lease_id=second), **options)).json["computation_id"] in ids
    assert (await served.send("POST", EXECUTE, served.body("print(2)"), **options)).code == "idempotency-conflict"


async def test_equal_requests_at_once_make_one_computation(served: Served) -> None:
    """The key is looked up in the transaction that inserts the job."""
    options = {"Prefer": "respond-async", "Idempotency_Key": "k"}
    answers = await asyncio.gather(*(served.send("POST", EXECUTE, served.body(), **options) for _ in range(8)))
    assert len({answer.json["computation_id"] for answer in answers}) == 1


async def test_a_token_reads_one_computation_and_cancels_none(served: Served) -> None:
    """Read-only: status, events and artifacts of its own computation."""
    answer = await served.send("POST", EXECUTE, served.body(), Prefer="respond-async")
    other = await served.submit()
    token = {"Pandacea_Job_Token": answer.json["job_token"]}
    mine = results(answer.json["computation_id"])
    assert (await served.send("GET", mine, signer=None, **token)).status == 200
    assert (await served.send("GET", results(other), signer=None, **token)).code == "job-token-invalid"
    assert (await served.send("DELETE", mine, signer=None, **token)).code == "signature-missing"


async def test_queues_are_full_at_their_limits(served: Served) -> None:
    """A Spender's own limit is 429, the node's 503; both say when to come back. Held and ended jobs take no place."""
    for _ in range(4):
        await served.submit()
    refused = await served.send("POST", EXECUTE, served.body(), Prefer="respond-async")
    assert (refused.status, refused.code) == (429, "too-many-jobs")
    assert int(refused.headers["retry-after"]) > 0
    another = LeaseId("0x" + "77" * 32)
    served.world.lease_cache.leases[another] = cached_lease(lease_id=another, spender=OTHER.address.lower(), max_computations=9)
    for _ in range(4):
        await served.send("POST", EXECUTE, served.body(lease_id=another), signer=OTHER, Prefer="respond-async")
    third = LeaseId("0x" + "78" * 32)
    served.world.lease_cache.leases[third] = cached_lease(lease_id=third, spender=SPENDER.address.lower())
    (await served.stage.next_play()).ends()
    while True:
        async with served.world.submit.database.read_session() as session:
            if await session.jobs.count_queued() == 7:
                break
        await asyncio.sleep(0.01)
    await served.submit()
    full = await served.send("POST", EXECUTE, served.body(lease_id=another), signer=OTHER, Prefer="respond-async")
    assert full.status in {429, 503}
    assert int(full.headers["retry-after"]) > 0


async def test_the_queue_is_fair_between_spenders(served: Served) -> None:
    """Whoever has fewer running goes first, not whoever came first."""
    mine = [await served.submit() for _ in range(4)]
    plays = [await served.stage.next_play() for _ in range(3)]
    another = LeaseId("0x" + "77" * 32)
    served.world.lease_cache.leases[another] = cached_lease(lease_id=another, spender=OTHER.address.lower())
    theirs = await served.send("POST", EXECUTE, served.body(lease_id=another), signer=OTHER, Prefer="respond-async")
    plays[0].ends()
    assert (await served.stage.next_play()).job.computation_id == theirs.json["computation_id"] != mine[3]


async def test_a_full_disk_is_said_before_the_job(served: Served) -> None:
    """Refused at submit; a job that waits keeps waiting when the room goes meanwhile."""
    tight = replace(served.world.submit, results=replace(served.world.submit.results, free_bytes=lambda _: 1000))
    object.__setattr__(served.node, "submit", tight)
    answer = await served.send("POST", EXECUTE, served.body())
    assert (answer.status, answer.code) == (503, "disk-full")
    crowded = replace(served.world.submit, results=replace(served.world.submit.results, max_bytes=1000))
    object.__setattr__(served.node, "submit", crowded)
    assert (await served.send("POST", EXECUTE, served.body())).code == "disk-full"


async def test_a_job_whose_box_could_not_be_made_says_that_it_may_be_sent_again(served: Served) -> None:
    """503 and uncharged: nothing about the request was wrong."""
    served.stage.starts = False
    waiting = asyncio.create_task(served.send("POST", EXECUTE, served.body()))
    for _ in range(3):
        (await served.stage.next_play()).end.set_exception(Unavailable("The engine is gone."))
    answer = await waiting
    assert (answer.status, answer.code) == (503, "computation-interrupted")
    assert int(answer.headers["retry-after"]) > 0


async def test_an_asset_that_is_no_table_names_no_row_of_it(served: Served) -> None:
    """The parser's own words may quote a cell: they stay on the node."""
    served.stage.starts = False
    waiting = asyncio.create_task(served.send("POST", EXECUTE, served.body()))
    play = await served.stage.next_play()
    play.ends(Outcome(Failure.DATA_UNREADABLE, "could not convert string to float: 'Ada'", b""))
    answer = await waiting
    assert answer.code == "computation-failed"
    assert "Ada" not in answer.json["detail"]
    assert "nothing was charged" in answer.json["detail"]


async def test_a_cancelled_run_ends_cancelled_whatever_came_of_it(served: Served) -> None:
    """204 is a promise, kept by a restart too: a result that came in the same moment is not kept."""
    computation_id = await served.submit()
    play = await served.stage.next_play()
    async with served.world.submit.database.unit_of_work() as work:
        await work.jobs.request_cancel(computation_id)
        await work.commit()
    play.writes(b"too late")
    play.ends(a=b"1")
    row = await served.reaches(computation_id, JobState.CANCELLED)
    assert (row.state, row.charge, row.output) == (JobState.CANCELLED, Charge.CHARGED, b"")
    folder = served.world.submit.results.path_of(computation_id)
    async with asyncio.timeout(10):  # the row is the truth and comes first; its files go right after
        while folder.exists():
            await asyncio.sleep(0.01)
    assert (await served.send("DELETE", results(computation_id))).code == "not-cancellable"


async def test_waiting_jobs_are_cancelled_at_once_and_cost_nothing(served: Served) -> None:
    """No user code ran."""
    for _ in range(3):
        await served.submit()
    computation_id = await served.submit()
    assert (await served.send("DELETE", results(computation_id))).status == 204
    row = await served.row(computation_id)
    assert (row.state, row.charge) == (JobState.CANCELLED, Charge.RETURNED)
    assert (await served.send("GET", results(computation_id))).json["reason"] == "Cancelled by its Spender."
