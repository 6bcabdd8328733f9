"""Caps on what the node's transactions may cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pandacea.errors import Unavailable
from pandacea.flows.chain_store import SentTransaction

DAY_SECONDS: Final = 86_400.0
"""Seconds of the period that the daily cap covers."""


@dataclass(frozen=True, slots=True)
class FeeLimits:
    """Caps and waits of the node's transactions."""

    max_wei_per_transaction: int = 10**16
    """Wei that one transaction may cost at most (gas limit x fee): 0.01 ether."""
    max_wei_per_day: int = 10**17
    """Wei that all transactions signed within 24 hours may cost at most: 0.1 ether."""
    max_gas: int = 500_000
    """Gas limit of one transaction at most."""
    priority_fee_wei: int = 10**9
    """Per gas."""
    bump_after_seconds: float = 90.0
    """After which a transaction that is not mined is replaced by one with a higher fee."""
    wait_seconds: float = 30.0
    """How long one call waits for its transaction to be mined."""
    final_depth_blocks: int = 64
    """Blocks on top of a mined transaction after which it is final."""

    def check_caps(self, nonce: int, cost: int, recent: Iterable[SentTransaction]) -> None:
        """Check a transaction that may cost `cost` wei against the caps; `recent`: what was signed in the last 24 hours.

        Raises:
            Unavailable: it exceeds a cap; the message names both and the setting.
        """
        if cost > self.max_wei_per_transaction:
            raise Unavailable(
                f"One transaction would cost up to {cost} wei; the cap is {self.max_wei_per_transaction}. "
                "Wait for lower fees or raise settlement.max_fee_eth_per_transaction.",
                retry_after=300,
            )
        spent: dict[int, int] = {nonce: cost}
        for row in recent:
            # Attempts with one nonce replace each other: at most the most expensive is paid.
            if row.state != "lost":
                spent[row.nonce] = max(spent.get(row.nonce, 0), row.max_cost)
        if sum(spent.values()) > self.max_wei_per_day:
            raise Unavailable(
                f"Transactions of the last 24 hours may cost {sum(spent.values())} wei; the cap is {self.max_wei_per_day}. "
                "Wait, or raise settlement.max_fee_eth_per_day.",
                retry_after=600,
            )
