"""Server-sent events: what the product lets out while a script runs, to whom the lease allows it, from where the reader was."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from pandacea.domain.charge import Charge
from pandacea.domain.ids import LeaseId
from pandacea.domain.job import JobState
from pandacea.domain.lease import LeaseStatus
from pandacea.domain.outcome import Failure
from pandacea.domain.product import LiveOutput
from pandacea.flows.finish import recover_jobs
from tests.fakes import cached_lease
from tests.jobs.conftest import OTHER, Served, results
from tests.jobs.stage import Play

Event = tuple[str, str, dict[str, Any]]


async def next_event(response: aiohttp.ClientResponse, seconds: float = 5) -> Event | None:
    """(kind, id, data) of the next event, comments left out; None at the end of the stream."""
    fields: dict[str, str] = {}
    async with asyncio.timeout(seconds):
        async for line in response.content:
            text = line.decode().rstrip("\n")
            if text.startswith(":"):
                continue
            if not text:
                if fields:
                    return fields["event"], fields["id"], json.loads(fields["data"])
                continue
            name, _, value = text.partition(": ")
            fields[name] = value
    return None


async def require_event(response: aiohttp.ClientResponse) -> Event:
    """The next event, of which there is one."""
    event = await next_event(response)
    assert event is not None
    return event


async def read_rest(response: aiohttp.ClientResponse) -> list[Event]:
    """Every event to the end."""
    found = []
    while (event := await next_event(response)) is not None:
        found.append(event)
    return found


async def start_running(served: Served) -> tuple[str, Play]:
    """A computation that runs."""
    computation_id = await served.submit()
    return computation_id, await served.stage.next_play()


async def test_states_progress_and_output_come_as_they_happen(served: Served) -> None:
    """At `full`, a reader sees everything, each byte once, and the end."""
    computation_id, play = await start_running(served)
    async with served.request("GET", results(computation_id, "/events")) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert (await require_event(response))[2] == {"status": "running"}
        play.writes("schön".encode()[:4])  # half of the ö
        first = await next_event(response)
        play.writes("schön".encode()[4:] + b"\n\ndata: not an event\n")
        second = await next_event(response)
        play.progresses(1, 4)
        third = await next_event(response)
        play.ends()
        last = await read_rest(response)
    assert first is not None
    assert second is not None
    assert third is not None
    assert first[2] == {"offset": 0, "output": "sch"}
    assert second[2] == {"offset": 3, "output": "ön\n\ndata: not an event\n"}
    assert third[::2] == ("progress", {"done": 1.0, "total": 4.0})
    assert [(kind, data) for kind, _, data in last] == [("state", {"status": "completed"})]


async def test_a_reader_that_comes_back_goes_on_where_it_was(served: Served) -> None:
    """Last-Event-ID names the reader's place: nothing twice, nothing missing."""
    computation_id, play = await start_running(served)
    play.writes(b"one ")
    async with served.request("GET", results(computation_id, "/events")) as response:
        await next_event(response)
        seen = await next_event(response)
    assert seen is not None
    assert seen[2]["output"] == "one "
    play.writes(b"two")
    async with served.request("GET", results(computation_id, "/events"), Last_Event_ID=seen[1]) as response:
        await next_event(response)
        again = await next_event(response)
    assert again is not None
    assert again[2] == {"offset": 4, "output": "two"}
    async with served.request("GET", results(computation_id, "/events"), Last_Event_ID="junk") as response:
        await next_event(response)
        whole = await next_event(response)
    assert whole is not None
    assert whole[2]["output"] == "one two"


async def test_at_progress_only_whole_rising_percent_leave(served: Served) -> None:
    """A script cannot spell its data in the numbers: not in fractions, not by going up and down, not by infinities."""
    served.rules(live_output=LiveOutput.PROGRESS)
    computation_id, play = await start_running(served)
    async with served.request("GET", results(computation_id, "/events")) as response:
        await next_event(response)
        play.writes(b"Ada is 37\n")
        for done, total in ((3.14159, 10), (float("nan"), 1), (1, float("inf")), (-5, 10), (1, 0), (2, 10), (3.2, 10)):
            play.progresses(done, total)
        await asyncio.sleep(0.3)
        play.progresses(50, 100)
        await asyncio.sleep(0.3)
        play.ends()
        told = await read_rest(response)
    assert [(kind, data) for kind, _, data in told[:-1]] == [
        ("progress", {"done": 32.0, "total": 100.0}),
        ("progress", {"done": 50.0, "total": 100.0}),
    ]
    assert told[-1][0] == "state"


async def test_at_none_nothing_leaves_before_the_end(served: Served) -> None:
    """And a run that showed nothing counts as such."""
    served.rules(live_output=LiveOutput.NONE)
    computation_id, play = await start_running(served)
    async with served.request("GET", results(computation_id, "/events")) as response:
        await next_event(response)
        play.writes(b"x")
        play.progresses(1, 2)
        play.ends()
        assert [kind for kind, _, _ in await read_rest(response)] == ["state"]
    assert (await served.row(computation_id)).live_at is None


async def test_the_lease_is_asked_at_each_flush(served: Served) -> None:
    """A cancellation on-chain ends an open stream: what the script writes afterwards does not leave."""
    computation_id, play = await start_running(served)
    async with served.request("GET", results(computation_id, "/events")) as response:
        await next_event(response)
        play.writes(b"before")
        assert (await require_event(response))[2]["output"] == "before"
        served.lease(status=LeaseStatus.CANCELLED)
        play.writes(b"after")
        told = await read_rest(response)
    assert [(kind, data["code"]) for kind, _, data in told] == [("denied", "lease-cancelled")]


async def test_an_open_poll_is_denied_when_the_lease_is_lost(served: Served) -> None:
    """May_read is asked when the wait is over, not only when it began."""
    computation_id, _ = await start_running(served)
    waiting = asyncio.create_task(served.send("GET", results(computation_id, "?wait=10")))
    await asyncio.sleep(0.2)
    served.lease(in_dispute=True)
    assert (await waiting).code == "lease-disputed"


async def test_what_was_shown_is_charged_even_when_the_node_dies(served: Served) -> None:
    """Live output left: an interruption no longer gives the computation back. Written before the first byte left."""
    shown, play = await start_running(served)
    hidden, _ = await start_running(served)
    async with served.request("GET", results(shown, "/events")) as response:
        await next_event(response)
        play.writes(b"x")
        await next_event(response)
    row = await served.row(shown)
    assert row.live_at is not None
    assert row.charge is Charge.CHARGED
    await recover_jobs(served.world.execute)
    for computation_id, charge in ((shown, Charge.CHARGED), (hidden, Charge.RETURNED)):
        row = await served.row(computation_id)
        assert (row.state, row.failure, row.charge) == (JobState.FAILED, Failure.INTERRUPTED, charge)
    assert (await served.send("GET", results(shown))).json["error"]["type"] == "interrupted"


async def test_output_nobody_reads_live_is_not_shown(served: Served) -> None:
    """Only what left counts."""
    computation_id, play = await start_running(served)
    play.writes(b"x")
    await asyncio.sleep(0.1)
    assert (await served.row(computation_id)).live_at is None


async def test_streams_are_few_and_only_for_their_spender(served: Served) -> None:
    """Four at a time, polls among them; another's computation does not exist."""
    computation_id, play = await start_running(served)
    open_streams = [served.request("GET", results(computation_id, "/events")) for _ in range(4)]
    responses = [await stream.__aenter__() for stream in open_streams]
    assert (await served.send("GET", results(computation_id, "/events"))).code == "too-many-streams"
    assert (await served.send("GET", results(computation_id, "?wait=1"))).code == "too-many-streams"
    another = LeaseId("0x" + "77" * 32)
    served.world.lease_cache.leases[another] = cached_lease(lease_id=another, spender=OTHER.address.lower())
    assert (await served.send("GET", results(computation_id, "/events"), signer=OTHER)).code == "computation-unknown"
    play.ends()
    for response in responses:
        response.close()


async def test_a_stream_of_what_has_ended_says_so_and_ends(served: Served) -> None:
    """Coming late costs nothing but the live part."""
    computation_id, play = await start_running(served)
    play.ends()
    await served.reaches(computation_id, JobState.COMPLETED)
    async with served.request("GET", results(computation_id, "/events")) as response:
        assert [(kind, data) for kind, _, data in await read_rest(response)] == [("state", {"status": "completed"})]
