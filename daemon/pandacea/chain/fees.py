"""What the node's transactions may cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pandacea.errors import Unavailable
from pandacea.flows.records import SentTransaction

A_DAY: Final = 86_400.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class FeeLimits:
    """Caps in wei; `stuck_after` and `wait` in seconds; `settled_depth` in blocks."""

    per_transaction: int = 10**16
    """The most one transaction may cost (gas limit x fee): 0.01 ether."""
    per_day: int = 10**17
    """The most that all transactions signed within 24 hours may cost: 0.1 ether."""
    gas: int = 500_000
    priority_fee: int = 10**9
    stuck_after: float = 90.0
    wait: float = 30.0
    """How long one call waits for a block before it says: later."""
    settled_depth: int = 64
    """Blocks after which a mined transaction is no longer looked after."""

    def afford(self, nonce: int, cost: int, recent: Iterable[SentTransaction]) -> None:
        """Pass a transaction that may cost `cost` wei, beside what was signed in the last 24 hours.

        Raises:
            Unavailable: it would break a cap; names both, and what to do.
        """
        if cost > self.per_transaction:
            raise Unavailable(
                f"One transaction would cost up to {cost} wei; the cap is {self.per_transaction}. "
                "Wait for lower fees or raise settlement.max_fee_per_transaction_wei.",
                retry_after=300,
            )
        spent: dict[int, int] = {nonce: cost}
        for row in recent:
            # Attempts of one nonce replace each other: only the dearest can be paid.
            if row.state != "lost":
                spent[row.nonce] = max(spent.get(row.nonce, 0), row.max_cost)
        if sum(spent.values()) > self.per_day:
            raise Unavailable(
                f"Transactions of the last 24 hours may cost {sum(spent.values())} wei; the cap is {self.per_day}. "
                "Wait, or raise settlement.max_fee_per_day_wei.",
                retry_after=600,
            )
