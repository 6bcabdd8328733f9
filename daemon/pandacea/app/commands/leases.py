"""`pandacea leases`: what the database says of the leases, and what the node would answer; read beside a running node."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

from pandacea.app import factories
from pandacea.config import Config
from pandacea.domain.access import CachedLease, Denied, ProductFacts, Unknown, may_run
from pandacea.domain.charge import Charge, count_used
from pandacea.domain.ids import Address, LeaseKey
from pandacea.errors import Unavailable
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.products import SqlProductStore
from pandacea.store.unit_of_work import SqlDatabase

NOT_FOLLOWED: Final = "This node has not followed the contract yet; start it once with `pandacea run`."


async def open_stored_leases(config: Config, db: DatabaseEngine) -> SqlChainStore:
    """The rows of the contract, with no node running.

    Raises:
        Unavailable: see `lease_rows`.
    """
    contract = factories.resolve_contract(config)
    records = SqlChainStore(db, contract.chain_id, contract.address)
    if await records.find_view() is None:
        raise Unavailable(NOT_FOLLOWED)
    return records


async def list_leases(config: Config) -> list[dict[str, Any]]:
    """Every approved lease of this Earner: status, terms, what is used, why its approval counts, why it would be refused now.

    Raises:
        Unavailable: the contract was not followed here yet, on the configured chain.
    """
    earner = Address(config.earner.address)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(factories.open_database(config))
        contract = factories.resolve_contract(config)
        follower = await stack.enter_async_context(factories.open_follower(config, contract, db, earner))
        if not await follower.load_from_database():
            raise Unavailable(NOT_FOLLOWED)
        # The database as it is: whether its head may be believed is for the running node to say (GET /readyz).
        standing = replace(follower.lease_cache.chain_status(), not_ready_reason=None)
        offered = await SqlProductStore(db).list_offered_hashes()
        rows = []
        async with SqlDatabase(db).read_session() as view:
            for lease_id in follower.lease_cache.list_ids():
                lease = follower.lease_cache.find_lease(lease_id)
                if lease is None:
                    continue
                counts = await view.jobs.count_by_charge(LeaseKey(contract.chain_id, contract.address, lease_id))
                charged, reserved = count_used(counts, lease.committed_count), counts.get(Charge.RESERVED, 0)
                facts = _facts(lease, offered)
                answer = may_run(
                    lease,
                    standing,
                    caller=lease.spender,
                    earner=earner,
                    product=facts,
                    assets=(),
                    product_version=None,
                    used=charged,
                    reserved=reserved,
                    time_limit=config.privacy.limits.time_seconds,
                    clock=time.time(),
                )
                refused = answer.detail if isinstance(answer, Denied | Unknown) else None
                rows.append(_row(lease, charged, reserved, counts.get(Charge.ALLOWANCE, 0), refused))
    return rows


def _facts(lease: CachedLease, offered: set[str]) -> ProductFacts | None:
    if lease.data_product_id is None or lease.data_product_id not in offered:
        return None
    return ProductFacts(lease.data_product_id, frozenset(), "")


def _row(lease: CachedLease, charged: int, reserved: int, failed: int, refused: str | None) -> dict[str, Any]:
    return {
        "lease_id": lease.lease_id,
        "status": lease.status.value,
        "spender": lease.spender,
        "data_product_id": lease.data_product_id,
        "expires_at": lease.expires_at,
        "max_computations": lease.max_computations,
        "used": charged,
        "reserved": reserved,
        "failed_runs": failed,
        "approved_block": lease.approved_block,
        "approval": lease.proof_status.value,
        "reason": refused,
    }
