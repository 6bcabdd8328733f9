"""Run coroutines for synchronous callers, on an event loop with a thread of its own: what the generated `client` is built on."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine, Iterator
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

T = TypeVar("T")


class Closable(Protocol):
    """What a blocking client closes at its end."""

    async def close(self) -> None:
        """Close the connections to the node."""


class LoopThread:
    """An event loop on a daemon thread, which starts at the first use."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop until it ends; Ctrl-C cancels it."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run_loop, args=(self._loop,), name="pandacea-client", daemon=True).start()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Iterate over what comes; leaving the loop early ends the stream."""
        try:
            while True:
                try:
                    item = self.run(_next_item(items))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if hasattr(items, "aclose"):
                self.run(items.aclose())

    def stop(self) -> None:
        """Stop the loop, which ends its thread."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None


class BlockingClient:
    """The part of the synchronous client that no method of the asynchronous one has: its thread."""

    def __init__(self, client: Closable) -> None:
        """`client`: closed on the loop at the end."""
        self._closable = client
        self._loop = LoopThread()
        # A client that is not closed must not keep its thread.
        self._finalizer = weakref.finalize(self, LoopThread.stop, self._loop)

    def __enter__(self) -> Self:
        """Return the client; connections are opened when they are needed."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the connections to the node."""
        self.close()

    def close(self) -> None:
        """Close the connections; the client cannot be used afterwards."""
        if self._finalizer.alive:
            self._loop.run(self._closable.close())
            self._finalizer()


async def _next_item(items: AsyncIterator[T]) -> T:
    return await anext(items)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop and close it on the same thread. The garbage collector would close its descriptors in any order, on any thread."""
    try:
        loop.run_forever()
    finally:
        loop.close()
