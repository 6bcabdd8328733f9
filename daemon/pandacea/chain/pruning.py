"""Deletes leases that nobody approved, so that creating them costs their creator and not the node."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import structlog

from pandacea.errors import Unavailable
from pandacea.flows.following.chain_store import ChainStore

log = structlog.get_logger(__name__)

APPROVAL_WINDOW_SECONDS: Final = 8 * 24 * 3600
"""After which a v1 lease that nobody approved is deleted: the contract's 7 days and one day of margin."""

PRUNE_INTERVAL_SECONDS: Final = 600.0
"""Between two deletions."""


@dataclass(slots=True)
class LeasePruner:
    """Deletes expired lease requests of a v1 contract; under v0 an approval may come at any time."""

    chain_store: ChainStore
    _done_at: float = float("-inf")

    async def prune_if_due(self, now: int) -> None:
        """Delete, at most every ten minutes, leases that can no longer be approved; `now`: timestamp of a trusted tip."""
        if time.monotonic() - self._done_at < PRUNE_INTERVAL_SECONDS:
            return
        self._done_at = time.monotonic()
        try:
            async with self.chain_store.unit_of_work() as tx:
                count = await tx.leases.prune_waiting(now - APPROVAL_WINDOW_SECONDS)
                await tx.commit()
        except Unavailable as error:
            log.warning("chain.prune_postponed", reason=error.detail)
        else:
            if count:
                log.info("chain.pruned", leases=count)
