"""A Spender whose queue or room for results is nearly full reads from refusals when a held run ends, and the size of its result.

A request that cannot be accepted anyway (it names an upload that is not there) costs nothing, and is refused with another code as long as
the run goes on; and the refusal of a full room named the bytes that are held, to the last one.
"""

from __future__ import annotations

import asyncio
import re

from pandacea.domain.job import JobState
from pandacea.domain.product import Release
from pandacea.flows.execute import run_next_job
from tests.jobs.conftest import EXECUTE, JobAnswer, Served, results, served

__all__ = ["run_next_job", "served"]

QUEUE = 4  # of the served world, for one Spender


async def probe(served: Served) -> JobAnswer:
    """What a Spender is told of a request that takes nothing."""
    return await served.send("POST", EXECUTE, served.body(uploads={"absent": "0" * 64}), Prefer="respond-async")


async def test_a_full_queue_does_not_tell_when_a_held_run_ends(served: Served) -> None:
    """As it was played: `too-many-jobs` until the run ends. Now until its time limit has passed, as it reads itself."""
    served.rules(release=Release.HOLD)
    first = await served.submit()
    play = await served.stage.next_play()
    for _ in range(QUEUE - 1):
        await served.submit()
    assert (await probe(served)).code == "too-many-jobs"
    play.ends()
    await served.reaches(first, JobState.HELD)
    assert (await probe(served)).code == "too-many-jobs"
    served.clock.added += served.world.submit.limits.time_seconds
    assert (await probe(served)).code == "upload-unknown"


async def test_a_full_queue_does_not_tell_whether_a_cancelled_run_was_over(served: Served) -> None:
    """Cancelled is cancelled: its place is free at once, whether its box is still being destroyed or was gone before."""
    served.rules(release=Release.HOLD)
    served.stage.lingers = asyncio.Event()
    told = []
    for over in (True, False):
        cancelled = await served.submit()
        play = await served.stage.next_play()
        filling = [await served.submit() for _ in range(QUEUE - 1)]
        if over:
            play.ends()
            await served.reaches(cancelled, JobState.HELD)
        await served.send("DELETE", results(cancelled))
        told.append((await probe(served)).code)
        served.stage.lingers.set()
        for one in filling:
            await served.send("DELETE", results(one))
            await served.reaches(one, JobState.CANCELLED)
        served.stage.plays = asyncio.Queue()
        served.stage.lingers.clear()
    assert told == ["upload-unknown", "upload-unknown"]


async def test_a_full_room_tells_neither_the_end_of_a_held_run_nor_the_size_of_its_result(served: Served) -> None:
    """As it was played: a room in which one byte too many is held. What is held counts once it reads as held, and no figure is named."""
    served.rules(release=Release.HOLD)
    store, limits = served.world.submit.results, served.world.submit.limits
    object.__setattr__(store, "max_bytes_per_spender", limits.largest_result)
    computation_id = await served.submit()
    play = await served.stage.next_play()
    assert (await probe(served)).code == "upload-unknown"
    play.ends(weights=b"1234567")
    await served.reaches(computation_id, JobState.HELD)
    assert (await probe(served)).code == "upload-unknown"
    served.clock.added += limits.time_seconds
    full = await probe(served)
    assert full.code == "results-full"
    assert not re.search(r"\b7\b", full.json["detail"]), "the size of what is held"
