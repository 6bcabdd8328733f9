"""Rate limits by caller: token buckets and counts of open streams, both bounded in memory."""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from pandacea_sdk.protocol.problems import ProtocolError

MAX_STREAMS: Final = 4
"""Open long-polls and event streams of one Spender."""


class RateLimiter:
    """Token buckets by key: `burst` requests at once, then `per_second`. Beyond `max_keys` the least recently used key is dropped.

    A dropped key starts with a full bucket again: with more active keys than `max_keys` the limit is looser, but memory stays bounded.
    """

    def __init__(self, per_second: float, burst: float, monotonic: Callable[[], float], max_keys: int = 10_000) -> None:
        """`monotonic` returns seconds from any origin."""
        self._per_second = per_second
        self._burst = burst
        self._monotonic = monotonic
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def acquire(self, key: str) -> None:
        """Take one token of a key's bucket.

        Raises:
            ProtocolError: `rate-limited`.
        """
        now = self._monotonic()
        tokens, seen = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - seen) * self._per_second)
        granted = tokens >= 1
        self._buckets[key] = (tokens - 1 if granted else tokens, now)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        if not granted:
            raise ProtocolError("rate-limited", f"More than {self._describe_rate()}; slow down and try again.")

    def _describe_rate(self) -> str:
        if self._per_second >= 1:
            return f"{self._burst:g} requests at once and {self._per_second:g} a second"
        return f"{self._burst:g} requests at once and one each {1 / self._per_second:g} s"


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Rate limits of routes that write: rows and scripts outlive the request that made them."""

    computations: RateLimiter = field(default_factory=lambda: RateLimiter(2, 64, time.monotonic))
    """POST execute, by Spender."""
    rehearsals: RateLimiter = field(default_factory=lambda: RateLimiter(1 / 6, 10, time.monotonic))
    """POST execute in mode `mock`, which is free, by Spender."""
    scripts: RateLimiter = field(default_factory=lambda: RateLimiter(1 / 10_800, 8, time.monotonic))
    """POST code of people without a lease, by peer: anybody can make any number of accounts."""


class StreamLimiter:
    """Limits the open streams and long-polls of each Spender."""

    def __init__(self, each: int = MAX_STREAMS) -> None:
        """`each`: how many one Spender may hold open."""
        self._each = each
        self._open: Counter[str] = Counter()

    @contextmanager
    def hold(self, spender: str) -> Iterator[None]:
        """Hold one stream while in the block.

        Raises:
            ProtocolError: `too-many-streams`.
        """
        if self._open[spender] >= self._each:
            raise ProtocolError("too-many-streams", f"You hold {self._each} streams or long-polls open; close one first.")
        self._open[spender] += 1
        try:
            yield
        finally:
            self._open[spender] -= 1
            if not self._open[spender]:
                del self._open[spender]
