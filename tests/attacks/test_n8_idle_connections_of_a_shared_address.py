"""One host behind a shared address opens 128 connections and says nothing, and everybody else at that address is refused.

When all places of the node are taken the longest idle connection gives way; when all places of an address were, none did.
"""

from __future__ import annotations

import asyncio

from pandacea.api.connection_guard import HttpLimits
from tests.api.conftest import StartNode, raw_request, send_raw, start_node, until

__all__ = ["start_node"]

PLACES = 8
PATIENCE = HttpLimits().patience_seconds


async def test_idle_connections_of_an_address_give_way_to_its_own(start_node: StartNode) -> None:
    """As it was played, and with half a head on each: a Spender at the same address is served, as often as they ask."""
    node = await start_node(HttpLimits(connections_per_peer=PLACES))
    held = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(PLACES)]
    for _, writer in held[::2]:
        writer.write(b"GET / HTTP/1.1\r\nHost:")
        await writer.drain()
    await until(lambda: node.server.connections.open == PLACES)
    await asyncio.sleep(PATIENCE)
    for _ in range(PLACES + 2):
        assert (await send_raw(node.port, node.signed_request())).status == 200
    for _, writer in held:
        writer.close()


async def test_who_is_served_does_not_give_way(start_node: StartNode) -> None:
    """Requests in progress stay, and a Spender's idle connection: beyond them an address is refused as before."""
    node = await start_node(HttpLimits(connections_per_peer=2))
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(node.signed_request())
    assert b"200 OK" in await reader.readline()
    busy = asyncio.create_task(send_raw(node.port, raw_request("GET", "/slow?seconds=2", {}, None)))
    await until(lambda: node.server.connections.open == 2)
    await asyncio.sleep(PATIENCE)
    assert (await send_raw(node.port, node.signed_request())).code == "too-many-connections"
    assert (await busy).status == 200
    writer.close()
