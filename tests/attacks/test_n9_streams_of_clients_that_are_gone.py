"""A connection breaks while its request waits, four times, and its Spender has no stream left until the computations have ended.

Whoever sits between a Spender and the node, or a bad network alone, so keeps the Spender from waiting, polling and listening for an hour.
"""

from __future__ import annotations

import asyncio

import aiohttp

from pandacea.api.rate_limit import MAX_STREAMS
from tests.api.conftest import until
from tests.jobs.conftest import EXECUTE, Served, results, served

__all__ = ["served"]


def held(served: Served) -> int:
    """Streams of all Spenders."""
    return sum(served.node.streams._open.values())


async def test_a_stream_ends_with_its_connection(served: Served) -> None:
    """As it was played: as many requests as a Spender has streams, each cut off; then the Spender asks again."""
    body = served.body()
    mine = served.session
    served.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    waiting = [asyncio.create_task(served.send("POST", EXECUTE, body, Idempotency_Key="same")) for _ in range(MAX_STREAMS)]
    play = await served.stage.next_play()
    await until(lambda: held(served) == MAX_STREAMS)
    for request in waiting:
        request.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await served.session.close()
    served.session = mine
    await until(lambda: not held(served), 10)
    again = asyncio.create_task(served.send("POST", EXECUTE, body, Idempotency_Key="same"))
    await asyncio.sleep(0.2)
    play.ends()
    answer = await again
    assert answer.status == 200, answer.body
    assert (await served.send("GET", results(answer.json["computation_id"]))).status == 200
