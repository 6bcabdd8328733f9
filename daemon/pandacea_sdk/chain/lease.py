"""A lease as the contract stores it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pandacea_sdk.protocol.ids import LeaseStatus
from pandacea_sdk.protocol.json_types import JsonMapping


@dataclass(frozen=True, slots=True)
class OnChainLease:
    """One lease. Amounts in wei, times in Unix seconds (0: not yet), ids and addresses in lower-case hex."""

    lease_id: str
    spender: str
    earner: str
    data_product_id: str
    price: int
    status: LeaseStatus
    created_at: int
    approved_at: int
    executed_at: int
    disputed_at: int
    expires_at: int
    max_computations: int
    committed: int
    stake: int
    """Wei that raising a dispute locks until it is decided."""
    arbiter: str

    @classmethod
    def from_struct(cls, lease_id: str, answer: JsonMapping) -> Self:
        """Build it from the struct that `getLease` returns.

        Raises:
            ValueError: its status is that of no lease.
        """
        return cls(
            lease_id=lease_id,
            spender=answer["spender"],
            earner=answer["earner"],
            data_product_id=answer["dataProductId"],
            price=answer["price"],
            status=LeaseStatus(answer["status"]),
            created_at=answer["createdAt"],
            approved_at=answer["approvedAt"],
            executed_at=answer["executedAt"],
            disputed_at=answer["disputedAt"],
            expires_at=answer["expiresAt"],
            max_computations=answer["maxComputations"],
            committed=answer["committed"],
            stake=answer["stake"],
            arbiter=answer["arbiter"],
        )
