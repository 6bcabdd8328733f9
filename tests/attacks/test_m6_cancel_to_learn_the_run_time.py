"""A Spender cancels a held computation and reads from the answers whether its run was over already."""

from __future__ import annotations

import asyncio
from typing import Any

from pandacea.domain.job import JobState
from pandacea.domain.product import Release
from pandacea.flows.unit_of_work import Channel
from tests.jobs.conftest import EXECUTE, JobAnswer, Served, results


async def answers_after_cancelling(served: Served, *, over: bool) -> list[Any]:
    """Cancel a computation whose run is over, or still goes on in a box that lingers; everything its Spender can read of it then."""
    served.rules(release=Release.HOLD)
    served.stage.lingers = asyncio.Event()
    body = served.body()
    key = {"Idempotency-Key": "over" if over else "running"}
    computation_id = (await served.send("POST", EXECUTE, body, Prefer="respond-async", **key)).json["computation_id"]
    play = await served.stage.next_play()
    if over:
        play.ends(weights__pt=b"1234")
        await served.reaches(computation_id, JobState.HELD)
    streaming = asyncio.create_task(read_events(served, computation_id))
    await asyncio.sleep(0.2)  # the stream stands before the cancellation
    told: list[Any] = [
        await served.send("DELETE", results(computation_id)),
        await served.send("GET", results(computation_id)),
        await served.send("GET", results(computation_id, "/artifacts/weights.pt")),
        await served.send("DELETE", results(computation_id)),
        await served.send("POST", EXECUTE, body, Prefer="respond-async", **key),
        await served.send("GET", f"/api/v1/leases/{body['lease_id']}"),
    ]
    told.append(await asyncio.wait_for(streaming, 5))
    served.stage.lingers.set()
    await served.reaches(computation_id, JobState.CANCELLED)
    told.append(await served.send("GET", results(computation_id)))
    told.append(await served.send("POST", EXECUTE, body, Prefer="respond-async", **key))
    async with served.world.submit.database.read_session() as view:
        waiting = [one.message.payload for one in await view.outbox.fetch_due(Channel.CHAIN, served.clock.now())]
    return [plain(one, computation_id) for one in told] + [waiting]


async def read_events(served: Served, computation_id: str) -> str:
    """The whole event stream."""
    async with served.request("GET", results(computation_id, "/events")) as stream:
        return str(await stream.text())


def plain(one: JobAnswer | str, computation_id: str) -> str:
    """An answer without what differs between any two computations: its id, its token, and which request it was."""
    if isinstance(one, str):
        return one
    answer = (
        {key: value for key, value in one.json.items() if key not in {"job_token", "instance", "request_id"}} if one.body else {}
    )
    return f"{one.status} {answer}".replace(computation_id, "ID")


async def test_a_run_that_was_over_reads_like_one_that_was_not(served: Served) -> None:
    """Cancelled is cancelled: at once, in every answer, on the stream and on the chain, and the same after the box is gone."""
    over = await answers_after_cancelling(served, over=True)
    running = await answers_after_cancelling(served, over=False)
    assert "'used': 1" in over[5]
    assert "'used': 2" in running[5]
    assert over[:5] + over[6:] == running[:5] + running[6:]
    assert "cancelled" in over[1]
    assert "cancelled" in over[6]
