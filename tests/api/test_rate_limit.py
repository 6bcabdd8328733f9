"""Rates and streams: bounded for each, bounded in memory."""

from __future__ import annotations

import pytest

from pandacea.api.rate_limit import RateLimiter, StreamLimiter
from pandacea_sdk.protocol.problems import ProtocolError


def limited(rate: RateLimiter, key: str) -> bool:
    try:
        rate.acquire(key)
    except ProtocolError as error:
        return error.code == "rate-limited"
    return False


def test_a_burst_then_a_steady_rate() -> None:
    """Three at once, then one each half second; keys do not share."""
    now = 0.0
    rate = RateLimiter(2, 3, lambda: now)
    assert [limited(rate, "a") for _ in range(5)] == [False, False, False, True, True]
    assert not limited(rate, "b")
    now = 0.5
    assert [limited(rate, "a") for _ in range(2)] == [False, True]
    now = 100.0
    assert [limited(rate, "a") for _ in range(4)] == [False, False, False, True]


def test_keys_are_bounded() -> None:
    """A flood of names takes no more memory than the bound."""
    rate = RateLimiter(1, 1, lambda: 0.0, max_keys=100)
    for number in range(1000):
        rate.acquire(str(number))
    assert len(rate._buckets) == 100


def test_streams_are_counted_while_they_are_held() -> None:
    """Four each; one let go makes room; nothing is kept for spenders that hold none."""
    streams = StreamLimiter(2)
    with streams.hold("a"), streams.hold("a"), streams.hold("b"):
        with pytest.raises(ProtocolError) as caught, streams.hold("a"):
            pass
        assert caught.value.code == "too-many-streams"
    with streams.hold("a"):
        pass
    assert not streams._open
