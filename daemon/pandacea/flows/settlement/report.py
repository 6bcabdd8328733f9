"""How far settlement is behind: the results that were delivered and whose commitment is not final yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pandacea.flows.ports import Clock
from pandacea.flows.settlement.commit_results import ON_ITS_WAY, waiting_by_lease
from pandacea.flows.unit_of_work import Database, OutboxEntry

NORMAL_SECONDS: Final = 1_800.0
"""A commitment that waits no longer than this is on its way: finality takes a quarter of an hour on Ethereum."""


@dataclass(frozen=True, slots=True)
class SettlementReport:
    """What waits to be committed."""

    waiting: int = 0
    oldest_seconds: float = 0.0
    """Since the oldest of them was released."""
    reason: str | None = None
    """Why the contract or the chain did not take the oldest that has a reason; None: all are on their way."""

    def describe(self) -> str | None:
        """Say what is wrong; None: nothing is."""
        if not self.waiting or (self.reason is None and self.oldest_seconds < NORMAL_SECONDS):
            return None
        results = "1 delivered result is" if self.waiting == 1 else f"{self.waiting} delivered results are"
        why = self.reason or "sent, and not final yet"
        return f"{results} not committed, the oldest for {self.oldest_seconds / 60:.0f} minutes: {why}"


async def report_settlement(database: Database, clock: Clock) -> SettlementReport:
    """Report what waits to be committed."""
    return make_report([entry for entries in (await waiting_by_lease(database)).values() for entry in entries], clock.now())


def make_report(entries: Sequence[OutboxEntry], now: float) -> SettlementReport:
    """Report what waits, from the outbox's own messages; `now` in Unix seconds."""
    if not entries:
        return SettlementReport()
    ordered = sorted(entries, key=lambda entry: entry.id)
    reason = next((entry.note for entry in ordered if entry.note and entry.note != ON_ITS_WAY), None)
    return SettlementReport(len(ordered), max(0.0, now - ordered[0].created_at), reason)
