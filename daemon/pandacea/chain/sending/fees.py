"""What the node's transactions may cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pandacea.errors import Unavailable
from pandacea.flows.chain_store import SentTransaction

DAY_SECONDS: Final = 86_400.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class FeeLimits:
    """Caps in wei; `stuck_after` and `wait` in seconds; `settled_depth` in blocks."""

    max_wei_per_transaction: int = 10**16
    """The most one transaction may cost (gas limit x fee): 0.01 ether."""
    max_wei_per_day: int = 10**17
    """The most that all transactions signed within 24 hours may cost: 0.1 ether."""
    max_gas: int = 500_000
    priority_fee_wei: int = 10**9
    bump_after_seconds: float = 90.0
    wait_seconds: float = 30.0
    """How long one call waits for a block before it says: later."""
    final_depth_blocks: int = 64
    """Blocks after which a mined transaction is no longer looked after."""

    def check_caps(self, nonce: int, cost: int, recent: Iterable[SentTransaction]) -> None:
        """Pass a transaction that may cost `cost` wei, beside what was signed in the last 24 hours.

        Raises:
            Unavailable: it would break a cap; names both, and what to do.
        """
        if cost > self.max_wei_per_transaction:
            raise Unavailable(
                f"One transaction would cost up to {cost} wei; the cap is {self.max_wei_per_transaction}. "
                "Wait for lower fees or raise settlement.max_fee_per_transaction_wei.",
                retry_after=300,
            )
        spent: dict[int, int] = {nonce: cost}
        for row in recent:
            # Attempts of one nonce replace each other: only the dearest can be paid.
            if row.state != "lost":
                spent[row.nonce] = max(spent.get(row.nonce, 0), row.max_cost)
        if sum(spent.values()) > self.max_wei_per_day:
            raise Unavailable(
                f"Transactions of the last 24 hours may cost {sum(spent.values())} wei; the cap is {self.max_wei_per_day}. "
                "Wait, or raise settlement.max_fee_per_day_wei.",
                retry_after=600,
            )
