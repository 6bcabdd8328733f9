"""How old a block is when its leases count, as the follower reports it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from pandacea.chain import follower as follower_module
from pandacea.chain.follow_options import FollowOptions
from pandacea.chain.follower import Follower
from pandacea.domain.chain_view import BlockRef, ChainView
from pandacea.domain.ids import Address, BlockNumber, Hash32, Timestamp
from tests.fakes import FakeClock

HASH = Hash32("0x" + "ab" * 32)


async def test_the_age_of_each_block_at_the_head_is_observed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the newest block; what is read on the way to the head is old and would only blur it."""
    clock, observed = FakeClock(), list[float]()
    options = FollowOptions(contract=Address("0x" + "cc" * 20), earner=Address("0x" + "ee" * 20), chain_id=1)
    follower = Follower(cast("Any", None), cast("Any", None), clock, options)
    follower.observe_lag = observed.append
    follower.chain_store = cast("Any", object())
    follower.rereading = cast("Any", SimpleNamespace(report_doubts=None))
    follower.caught_up.set()

    async def apply(update: ChainView, *_: object) -> ChainView:
        return update

    monkeypatch.setattr(follower_module, "apply_update", apply)
    for number, age, head in ((5, 100, 9), (9, 3, 9)):
        view = ChainView(BlockRef(BlockNumber(number), HASH, HASH, Timestamp(int(clock.now()) - age)))
        follower._view = view
        follower.lease_cache.known_head = BlockNumber(head)
        await follower._apply(cast("Any", view))
    assert observed == [clock.now() - (int(clock.now()) - 3)]
