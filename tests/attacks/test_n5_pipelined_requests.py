"""A stranger asks for something slow and pipelines requests behind it, each of which the server keeps: megabytes become a gigabyte.

aiohttp before 3.14.1 reads on while a handler is busy: 37 MiB of the shortest requests took 700 MiB in eight seconds, with no key.
"""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from tests.api.conftest import StartNode, start_node

__all__ = ["start_node"]

SHORTEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1000
TAKEN = 16 * 1024 * 1024
"""More than sockets and one connection's queue hold on loopback."""


async def test_a_connection_is_not_read_while_its_requests_wait(start_node: StartNode) -> None:
    """As it was played: what is not handled yet stays with the client."""
    node = await start_node()
    _, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(b"GET /slow?seconds=30 HTTP/1.1\r\nHost: x\r\n\r\n")
    sent = 0
    try:
        async with asyncio.timeout(3):
            while sent < TAKEN:
                writer.write(SHORTEST)
                await writer.drain()
                sent += len(SHORTEST)
    except TimeoutError:
        pass
    writer.transport.abort()
    assert sent < TAKEN, "the server read every request that came behind the one it handles"


def test_no_version_that_reads_on_is_installed_with_a_node() -> None:
    """The node's own requirement, not only what was installed here."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(one) for one in project["optional-dependencies"]["daemon"]]
    served_by = [one.specifier for one in wanted if one.name == "aiohttp"]
    assert served_by, "the node names no version of aiohttp of its own"
    assert not served_by[0].contains("3.14.0")
