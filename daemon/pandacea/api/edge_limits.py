"""Limits before authentication: plain figures, and the count of open connections."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class EdgeLimits:
    """Limits before authentication. Sizes in bytes, times in seconds."""

    connections: int = 1024
    connections_per_peer: int = 128
    head_bytes: int = 16 * 1024
    header_count: int = 64
    line_bytes: int = 8190
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    """Between two requests of one connection."""
    write_seconds: float = 60.0
    """A peer that does not read its answer for this long is cut off."""
    body_bytes: int = 1 * MIB
    """Of a POST: 100 KB of code, six bytes for each at worst in JSON, and params."""
    upload_bytes: int = 64 * MIB
    """Of a PUT."""
    body_seconds: float = 20.0
    body_bytes_per_second: int = 64 * 1024
    """A body may take `body_seconds` plus its size at this rate."""
    bodies_bytes: int = 64 * MIB
    """All POST bodies being read or handled at one time."""


class Swept(Protocol):
    """A connection with deadlines."""

    def sweep(self, now: float) -> None:
        """End it if one has passed; `now` by the loop's clock."""
        ...


class Connections:
    """Counts open connections, in all and by peer address; peers in `exempt` (declared proxies) only in all."""

    def __init__(self, limits: EdgeLimits, exempt: frozenset[str] = frozenset()) -> None:
        """Start with none."""
        self._limits = limits
        self._exempt = exempt
        self._peers: Counter[str] = Counter()
        self._all: set[Swept] = set()
        self.open = 0
        self.opened = 0
        self.refused = 0

    def enter(self, peer: str, connection: Swept) -> bool:
        """Take a place; False when there is none."""
        full = self.open >= self._limits.connections
        greedy = peer not in self._exempt and self._peers[peer] >= self._limits.connections_per_peer
        if full or greedy:
            self.refused += 1
            if not self._peers[peer]:
                del self._peers[peer]
            return False
        self.open += 1
        self.opened += 1
        self._peers[peer] += 1
        self._all.add(connection)
        return True

    def leave(self, peer: str, connection: Swept) -> None:
        """Give the place back."""
        self._all.discard(connection)
        self.open -= 1
        self._peers[peer] -= 1
        if not self._peers[peer]:
            del self._peers[peer]

    async def sweep(self) -> None:
        """For ever: look at every connection's deadlines, often enough that none is overrun by more than half, or by a second."""
        limits = self._limits
        pause = min(1.0, min(limits.head_seconds, limits.idle_seconds, limits.write_seconds) / 2)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            for connection in list(self._all):
                connection.sweep(now)
