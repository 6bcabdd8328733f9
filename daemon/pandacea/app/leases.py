"""`pandacea leases`: what the database says of the leases, and what the node would answer; read beside a running node."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from pandacea.app import parts
from pandacea.config import Config
from pandacea.domain.access import Denied, KnownLease, ProductFacts, Unknown, may_run
from pandacea.domain.charge import Charge, used
from pandacea.domain.ids import Address, LeaseKey
from pandacea.errors import Unavailable
from pandacea.store.books import SqlBooks
from pandacea.store.products import SqlProductBook


async def lease_rows(config: Config) -> list[dict[str, Any]]:
    """Every approved lease of this Earner: status, terms, what is used, why its approval counts, why it would be refused now.

    Raises:
        Unavailable: no chain was followed here yet.
    """
    contract = parts.contract_of(config)
    earner = Address(config.earner.address)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(parts.database(config))
        follower = await stack.enter_async_context(parts.follower(config, contract, db, earner))
        if follower.endpoints.chain_id is None:
            await follower.endpoints.verify_all()
            await follower.endpoints.pick()
        if not await follower.load():
            raise Unavailable("This node has not followed the contract yet; start it once with `pandacea run`.")
        # The database as it is: whether its head may be believed is for the running node to say (GET /readyz).
        standing = replace(follower.book.standing(), distrust=None)
        offered = await SqlProductBook(db).offered_hashes()
        rows = []
        async with SqlBooks(db).read() as view:
            for lease_id in follower.book.ids():
                lease = follower.book.lease(lease_id)
                if lease is None:
                    continue
                chain_id = follower.endpoints.chain_id
                assert chain_id is not None
                counts = await view.jobs.counted(LeaseKey(chain_id, contract.address, lease_id))
                charged, reserved = used(counts, lease.committed_count), counts.get(Charge.RESERVED, 0)
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


def _facts(lease: KnownLease, offered: set[str]) -> ProductFacts | None:
    if lease.data_product_id is None or lease.data_product_id not in offered:
        return None
    return ProductFacts(lease.data_product_id, frozenset(), "")


def _row(lease: KnownLease, charged: int, reserved: int, failed: int, refused: str | None) -> dict[str, Any]:
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
        "approval": lease.trust.value,
        "reason": refused,
    }
