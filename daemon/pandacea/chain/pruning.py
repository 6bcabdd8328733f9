"""Leases that nobody approved are forgotten, so that making them costs whoever does and not us."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import structlog

from pandacea.errors import Unavailable
from pandacea.flows.records import ChainRecords

log = structlog.get_logger(__name__)

APPROVAL_WINDOW: Final = 8 * 24 * 3600
"""Seconds after which a v1 lease that nobody approved is forgotten: the contract's 7 days and one to spare."""

PRUNE_EVERY: Final = 600.0


@dataclass(slots=True)
class Pruning:
    """For v1 only: under v0 an approval may come at any time."""

    records: ChainRecords
    _done_at: float = float("-inf")

    async def look(self, now: int) -> None:
        """Forget what can be approved no more, every ten minutes; `now`: timestamp of a tip that is believed."""
        if time.monotonic() - self._done_at < PRUNE_EVERY:
            return
        self._done_at = time.monotonic()
        try:
            async with self.records.write() as tx:
                count = await tx.prune(now - APPROVAL_WINDOW)
                await tx.commit()
        except Unavailable as problem:
            log.warning("chain.prune-postponed", because=problem.detail)
        else:
            if count:
                log.info("chain.pruned", leases=count)
