"""Who waits for a computation, and who asked to cancel it: in memory only, for the row is the truth."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress


class Watch:
    """Wakes those who wait for a computation to end."""

    def __init__(self) -> None:
        """Nobody waits yet."""
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._cancels: dict[str, asyncio.Event] = {}

    def ended(self, computation_id: str) -> None:
        """The computation's row reached its end, or is held."""
        self._cancels.pop(computation_id, None)
        for event in self._waiting.pop(computation_id, ()):
            event.set()

    def join(self, computation_id: str) -> asyncio.Event:
        """Start waiting. Look at the row after this: an end between the look and the join would be missed otherwise."""
        event = asyncio.Event()
        self._waiting[computation_id].add(event)
        return event

    def leave(self, computation_id: str, event: asyncio.Event) -> None:
        """Stop waiting."""
        if waiting := self._waiting.get(computation_id):
            waiting.discard(event)
            if not waiting:
                del self._waiting[computation_id]

    async def until(self, event: asyncio.Event, seconds: float) -> None:
        """Wait for a joined event, at most `seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), seconds)

    def cancelled(self, computation_id: str) -> asyncio.Event:
        """The event that says its Spender asked to cancel a running computation."""
        return self._cancels.setdefault(computation_id, asyncio.Event())
