"""The JSON members that every view of a lease shares: GET of a lease, `pandacea leases`, and the control socket."""

from __future__ import annotations

from collections.abc import Mapping

from pandacea.domain.access import AccessDecision, CachedLease, Denied, Unknown
from pandacea.domain.charge import Charge, count_used
from pandacea_sdk.protocol.json_types import JsonObject


def lease_members(lease: CachedLease) -> JsonObject:
    """Return terms and approval of a lease."""
    return {
        "lease_id": lease.lease_id,
        "status": lease.status.value,
        "data_product_id": lease.data_product_id,
        "expires_at": lease.expires_at,
        "max_computations": lease.max_computations,
        "approved_block": lease.approved_block,
        "approval": lease.proof_status.value,
    }


def usage_members(lease: CachedLease, counts: Mapping[Charge, int]) -> dict[str, int]:
    """Return how many computations of a lease are used, reserved and paid by its allowance of failed runs."""
    return {
        "used": count_used(counts, lease.committed_count),
        "reserved": counts.get(Charge.RESERVED, 0),
        "failed_runs": counts.get(Charge.ALLOWANCE, 0),
    }


def refusal_reason(decision: AccessDecision) -> str | None:
    """Return why a computation would be refused now; None: it would be accepted."""
    return decision.detail if isinstance(decision, Denied | Unknown) else None
