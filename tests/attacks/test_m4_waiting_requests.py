"""One key lets 127 execute requests wait, or the whole world comes through one proxy, and nobody else finds a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from pandacea.api.connection_guard import HttpLimits
from pandacea.domain.ids import Address, LeaseId
from tests.api.conftest import StartNode, raw_request, send_raw, start_node, until
from tests.fakes import cached_lease
from tests.jobs.conftest import EXECUTE, OTHER, Served, served

__all__ = ["served", "start_node"]

WAITING, CLIENTS = 127, 300
OTHERS_LEASE = LeaseId("0x" + "2e" * 32)


async def test_waiting_requests_of_one_spender_are_counted(served: Served) -> None:
    """As it was played: a repeated Idempotency-Key costs no second computation, so it may not hold a connection for each either."""
    served.world.lease_cache.change_lease(cached_lease(lease_id=OTHERS_LEASE, spender=Address(OTHER.address), max_computations=50))
    body = served.body()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        served.session, mine = session, served.session
        requests = [asyncio.create_task(served.send("POST", EXECUTE, body, Idempotency_Key="same")) for _ in range(WAITING)]
        play = await served.stage.next_play()
        await until(lambda: sum(request.done() for request in requests) >= WAITING - 4)
        refused = [request.result() for request in requests if request.done()]
        assert {answer.code for answer in refused} == {"too-many-streams", "rate-limited"}
        assert (await served.send("GET", "/healthz", signer=None)).status == 200
        neighbour = asyncio.create_task(served.send("POST", EXECUTE, {**body, "lease_id": OTHERS_LEASE}, signer=OTHER))
        (await served.stage.next_play()).ends()
        assert (await neighbour).status == 200
        play.ends()
        answers = await asyncio.gather(*requests)
        served.session = mine
    assert sum(answer.status == 200 for answer in answers) == 4


@asynccontextmanager
async def proxy(port: int) -> AsyncIterator[int]:
    """A proxy as nginx is one: a connection of its own for each of its clients, whose address it adds to X-Forwarded-For."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        this = asyncio.current_task()
        assert this is not None
        tasks.add(this)
        upstream, there = await asyncio.open_connection("127.0.0.1", port)
        try:
            line, _, rest = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")
            client = rest.split(b"Client: ")[1].split(b"\r\n")[0]  # the test's clients have one address: they say which they play
            there.write(line + b"\r\nX-Forwarded-For: 192.0.2.99, " + client + b"\r\n" + rest)
            while data := await upstream.read(65_536):
                writer.write(data)
        finally:
            there.close()
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]
        for task in tasks:
            task.cancel()


def asks(client: str, seconds: float) -> bytes:
    return raw_request("GET", f"/slow?seconds={seconds}", {"Client": client, "Connection": "close"}, None)


async def test_three_hundred_clients_pass_a_proxy(start_node: StartNode) -> None:
    """As it was played: each with an address of its own behind one declared proxy. All are served."""
    node = await start_node(behind_proxy=True, proxies=("127.0.0.1",))
    async with proxy(node.port) as port:
        clients = [f"198.51.{n // 250}.{n % 250 + 1}" for n in range(CLIENTS)]
        answers = await asyncio.gather(*(send_raw(port, asks(client, 1.0), 20) for client in clients))
    assert [answer.status for answer in answers] == [200] * CLIENTS


async def test_one_client_behind_a_proxy_has_one_clients_share(start_node: StartNode) -> None:
    """One address, or one /64 of IPv6, gets what one peer gets, whatever it writes into X-Forwarded-For; its neighbour is served."""
    node = await start_node(behind_proxy=True, proxies=("127.0.0.1",))
    async with proxy(node.port) as port:
        greedy = [asyncio.create_task(send_raw(port, asks(f"2001:db8:1:2::{n:x}", 3.0), 20)) for n in range(CLIENTS)]
        await until(lambda: sum(task.done() for task in greedy) == CLIENTS - 128)
        assert (await send_raw(port, asks("2001:db8:1:3::1", 0.01))).status == 200
        answers = await asyncio.gather(*greedy)
    assert sorted(answer.status for answer in answers) == [200] * 128 + [503] * (CLIENTS - 128)


async def test_nobody_but_the_proxy_is_believed(start_node: StartNode) -> None:
    """Who comes directly is counted by the address they come from, and may write what they like."""
    node = await start_node(behind_proxy=True, proxies=("192.0.2.1",))
    raw = [raw_request("GET", "/slow?seconds=2", {"X-Forwarded-For": f"198.51.100.{n}"}, None) for n in range(130)]
    answers = await asyncio.gather(*(send_raw(node.port, one) for one in raw))
    assert sorted(answer.status for answer in answers) == [200] * 128 + [503] * 2


async def test_a_known_spender_finds_a_place_when_every_connection_is_taken(start_node: StartNode) -> None:
    """Idle connections from many addresses fill the node: whoever asks next is served, the longest idle stranger gives way."""
    node = await start_node(HttpLimits(connections=20, connections_per_peer=5))
    held = [await asyncio.open_connection("127.0.0.1", node.port, local_addr=(f"127.0.0.{2 + n // 5}", 0)) for n in range(20)]
    await until(lambda: node.server.connections.open == 20)
    assert (await send_raw(node.port, node.signed_request())).status == 200
    for _, writer in held:
        writer.close()
