"""Leases that nobody approved are forgotten, so that making them costs whoever does and not us."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import structlog

from pandacea.errors import Unavailable
from pandacea.flows.chain_store import ChainStore

log = structlog.get_logger(__name__)

APPROVAL_WINDOW_SECONDS: Final = 8 * 24 * 3600
"""Seconds after which a v1 lease that nobody approved is forgotten: the contract's 7 days and one to spare."""

PRUNE_INTERVAL_SECONDS: Final = 600.0


@dataclass(slots=True)
class LeasePruner:
    """For v1 only: under v0 an approval may come at any time."""

    chain_store: ChainStore
    _done_at: float = float("-inf")

    async def prune_if_due(self, now: int) -> None:
        """Forget what can be approved no more, every ten minutes; `now`: timestamp of a tip that is believed."""
        if time.monotonic() - self._done_at < PRUNE_INTERVAL_SECONDS:
            return
        self._done_at = time.monotonic()
        try:
            async with self.chain_store.unit_of_work() as tx:
                count = await tx.leases.prune_waiting(now - APPROVAL_WINDOW_SECONDS)
                await tx.commit()
        except Unavailable as problem:
            log.warning("chain.prune-postponed", because=problem.detail)
        else:
            if count:
                log.info("chain.pruned", leases=count)
