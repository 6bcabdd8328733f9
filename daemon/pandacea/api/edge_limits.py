"""Limits before authentication: plain figures, and the count of open connections."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final, Protocol

from pandacea.api.peers import TrustedProxies

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Limits before authentication. Sizes in bytes, times in seconds."""

    connections: int = 1024
    connections_per_peer: int = 128
    """Of one address (IPv6: one /64); behind a declared proxy, requests in progress of one client of it."""
    connections_per_spender: int = 64
    """Kept for one Spender when every connection is taken and idle ones give way, those of strangers first."""
    requests_per_spender: int = 64
    """In progress at one time, over however many connections and addresses."""
    head_bytes: int = 16 * 1024
    header_count: int = 64
    line_bytes: int = 8190
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    """Between two requests of one connection."""
    patience_seconds: float = 1.0
    """An idle connection does not give way to another of its own peer sooner: its request may be on its way."""
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
    """POST bodies of Spenders being read or handled at one time, as far as they have come."""
    bodies_per_spender: int = 8 * MIB
    """Of these, one Spender's."""
    stranger_bodies_bytes: int = 8 * MIB
    """The same of people without a lease: a pot of their own."""
    stranger_bodies_per_peer: int = 2 * MIB
    """Of these, one peer's."""


class GuardedTransport(Protocol):
    """A connection with deadlines."""

    def close_if_overdue(self, now: float) -> None:
        """End it if one has passed; `now` by the loop's clock."""
        ...

    def evict(self) -> None:
        """End it, idle as it is, and give its place back at once."""
        ...


class ConnectionAdmission:
    """Counts open connections, in all and by peer; those of declared proxies only in all, for their clients are counted one by one.

    When every place is taken, the connection that has been idle for longest gives way to a new one: first those on which no Spender ever
    signed a request, last those of Spenders and proxies. When a peer's places are, one of its own does that no Spender ever used and that
    has been idle for `patience_seconds`. So idle connections, from however many addresses or from a shared one, keep nobody out.
    """

    def __init__(self, limits: HttpLimits, proxies: TrustedProxies | None = None) -> None:
        """Start with none."""
        self._limits = limits
        self.proxies = proxies or TrustedProxies()
        self._peers: Counter[str] = Counter()
        self._all: set[GuardedTransport] = set()
        self._peer_of: dict[GuardedTransport, str] = {}
        self._idle_strangers: dict[GuardedTransport, float] = {}
        self._idle_known: dict[GuardedTransport, float] = {}
        """Idle since when, the longest first."""
        self._known: dict[GuardedTransport, str] = {}
        self._spenders: Counter[str] = Counter()
        self.open = 0
        self.opened = 0
        self.refused = 0

    def admit(self, peer: str, connection: GuardedTransport, *, proxied: bool = False) -> bool:
        """Take a place; False when there is none, and none that is idle."""
        if not proxied and self._peers[peer] >= self._limits.connections_per_peer and not self._make_room_of(peer):
            self.refused += 1
            return False
        if self.open >= self._limits.connections and not self._make_room():
            self.refused += 1
            return False
        self.open += 1
        self.opened += 1
        self._all.add(connection)
        if proxied:
            self._known[connection] = ""
        else:
            self._peers[peer] += 1
            self._peer_of[connection] = peer
        self.mark_idle(connection)
        return True

    def release(self, peer: str, connection: GuardedTransport) -> None:
        """Give the place back."""
        self.mark_busy(connection)
        self._all.discard(connection)
        self._peer_of.pop(connection, None)
        self.open -= 1
        spender = self._known.pop(connection, None)
        if spender:
            _take_one(self._spenders, spender)
        if spender != "":
            _take_one(self._peers, peer)

    def mark_busy(self, connection: GuardedTransport) -> None:
        """A request came on a connection: it does not give way."""
        self._idle_strangers.pop(connection, None)
        self._idle_known.pop(connection, None)

    def mark_idle(self, connection: GuardedTransport) -> None:
        """A connection waits for its next request."""
        (self._idle_known if connection in self._known else self._idle_strangers)[connection] = time.monotonic()

    def assign_to_spender(self, spender: str, connection: GuardedTransport) -> None:
        """A Spender's signed request came on a connection: it is theirs from now on, within their share."""
        if connection not in self._known and self._spenders[spender] < self._limits.connections_per_spender:
            self._known[connection] = spender
            self._spenders[spender] += 1

    def _make_room(self) -> bool:
        victim = next(iter(self._idle_strangers), None) or next(iter(self._idle_known), None)
        if victim is None:
            return False
        victim.evict()
        return True

    def _make_room_of(self, peer: str) -> bool:
        victim = next((one for one in self._idle_strangers if self._peer_of.get(one) == peer), None)
        if victim is None or time.monotonic() - self._idle_strangers[victim] < self._limits.patience_seconds:
            return False
        victim.evict()
        return True

    async def close_overdue_forever(self) -> None:
        """For ever: look at every connection's deadlines, often enough that none is overrun by more than half, or by a second."""
        limits = self._limits
        pause = min(1.0, min(limits.head_seconds, limits.idle_seconds, limits.write_seconds) / 2)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            for connection in list(self._all):
                connection.close_if_overdue(now)


def _take_one(counted: Counter[str], owner: str) -> None:
    counted[owner] -= 1
    if not counted[owner]:
        del counted[owner]
