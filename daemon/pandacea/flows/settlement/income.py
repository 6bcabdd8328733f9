"""Add up what an Earner's leases brought and cost, by product and month; pure, from the rows of leases and transactions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pandacea.domain.ids import Hash32, LeaseId
from pandacea.domain.lease import Lease, LeaseStatus

_PENDING: Final = frozenset({LeaseStatus.APPROVED, LeaseStatus.EXECUTED, LeaseStatus.DISPUTED})
"""The contract holds the price, and nobody has it yet."""
NO_PRODUCT: Final = "-"
"""In the place of a product: what belongs to no lease, or to one without a product (v0)."""


@dataclass(frozen=True, slots=True)
class LeaseIncome:
    """One lease that was approved; `created_at` in Unix seconds, `credited_wei` as the contract credited it to the Earner."""

    lease: Lease
    created_at: int
    credited_wei: int


@dataclass(frozen=True, slots=True)
class GasCost:
    """What one mined transaction cost, and the leases for which it was sent; `sent_at` in Unix seconds."""

    wei: int
    leases: tuple[LeaseId, ...]
    sent_at: float
    is_bound: bool = False
    """Whether only a bound is known: the transaction was mined before costs were kept."""


@dataclass(slots=True)
class IncomeRow:
    """Sums of one product's leases that were created in one month (UTC); amounts in wei."""

    month: str
    product: str
    leases: int = 0
    leased_wei: int = 0
    """Prices of the leases that were approved, whatever became of them."""
    earned_wei: int = 0
    """Credited to the Earner by the contract, withdrawn or not; with the stakes of disputes that it won."""
    pending_wei: int = 0
    """Prices that the contract still holds."""
    gas_wei: int = 0
    """What the node's transactions for these leases cost."""
    gas_is_bound: bool = False
    """Whether the gas is at most this much."""


def sum_income(leases: Iterable[LeaseIncome], gas: Iterable[GasCost], names: Mapping[Hash32, str]) -> list[IncomeRow]:
    """Return a row for each month and product, in this order; `names`: ids of products by their hash.

    Gas belongs to the month of its lease; a batch's is shared out evenly. What was sent for no known lease stands in the month in
    which it was sent.
    """
    rows: dict[tuple[str, str], IncomeRow] = {}
    row_of: dict[LeaseId, IncomeRow] = {}

    def find_row(at: float, product: str) -> IncomeRow:
        month = f"{datetime.fromtimestamp(at, UTC):%Y-%m}"
        return rows.setdefault((month, product), IncomeRow(month, product))

    for one in leases:
        product = one.lease.data_product_id
        row = find_row(one.created_at, NO_PRODUCT if product is None else names.get(product, product))
        row_of[one.lease.key.lease_id] = row
        row.leases += 1
        row.leased_wei += one.lease.price
        row.earned_wei += one.credited_wei
        row.pending_wei += one.lease.price if one.lease.status in _PENDING else 0
    for cost in gas:
        known = [row_of[lease_id] for lease_id in cost.leases if lease_id in row_of] or [find_row(cost.sent_at, NO_PRODUCT)]
        share, rest = divmod(cost.wei, len(known))
        for place, row in enumerate(known):
            row.gas_wei += share + (1 if place < rest else 0)
            row.gas_is_bound = row.gas_is_bound or cost.is_bound
    return [rows[key] for key in sorted(rows)]
