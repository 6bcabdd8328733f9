"""Waiting until a descriptor can be read or written, for sockets and descriptors that asyncio has no stream for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable


async def wait_readable(file: socket.socket | int) -> None:
    """Return when there is something to read, or the end of it; a pidfd is readable once its process has ended."""
    loop = asyncio.get_running_loop()
    await _wait(lambda wake: loop.add_reader(file, wake), lambda: loop.remove_reader(file))


async def wait_writable(file: socket.socket | int) -> None:
    """Return when something can be written, or the other end is gone."""
    loop = asyncio.get_running_loop()
    await _wait(lambda wake: loop.add_writer(file, wake), lambda: loop.remove_writer(file))


async def _wait(watch: Callable[[Callable[[], None]], None], unwatch: Callable[[], bool]) -> None:
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    watch(wake)
    try:
        await ready
    finally:
        unwatch()
