"""Who waits for a computation, what a running one shows, and who asked to cancel it: in memory, for the row is the truth."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pandacea.flows.live_output import LiveFeed


class JobNotifier:
    """Wakes those who wait for a computation to move on, and holds what running ones show."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._cancels: dict[str, asyncio.Event] = {}
        self._feeds: dict[str, LiveFeed] = {}
        self.stopping = False

    def stop_waiting(self) -> None:
        """The node stops: whoever waits for something that will not happen any more is told so."""
        self.stopping = True
        for computation_id in list(self._waiting):
            self.notify(computation_id)

    def notify(self, computation_id: str) -> None:
        """Something that may be seen happened to a computation: its row moved on, or it wrote."""
        for event in self._waiting.get(computation_id, ()):
            event.set()

    @contextmanager
    def subscribed(self, computation_id: str) -> Iterator[asyncio.Event]:
        """Wait for a computation inside this block. Look at the row AFTER entering: an earlier look could miss a change."""
        event = asyncio.Event()
        self._waiting[computation_id].add(event)
        try:
            yield event
        finally:
            waiting = self._waiting[computation_id]
            waiting.discard(event)
            if not waiting:
                del self._waiting[computation_id]

    def open_feed(self, computation_id: str, feed: LiveFeed) -> None:
        """A run begins to show itself."""
        self._feeds[computation_id] = feed

    def find_feed(self, computation_id: str) -> LiveFeed | None:
        """What a running computation showed so far; None when it does not run or shows nothing."""
        return self._feeds.get(computation_id)

    def close_feed(self, computation_id: str) -> None:
        """A run is over, whatever became of it."""
        self._feeds.pop(computation_id, None)
        self._cancels.pop(computation_id, None)

    def cancel_event(self, computation_id: str) -> asyncio.Event:
        """The event that says its Spender asked to cancel a running computation."""
        return self._cancels.setdefault(computation_id, asyncio.Event())


async def wait_for_event(event: asyncio.Event, seconds: float) -> None:
    """Wait for a joined event, at most `seconds`."""
    with suppress(TimeoutError):
        async with asyncio.timeout(max(seconds, 0)):
            await event.wait()
