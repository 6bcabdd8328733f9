"""`pandacea leases`: what the database says of the leases, and what the node would answer; read beside a running node."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Final

from pandacea.app import parts
from pandacea.config import Config
from pandacea.domain.access import Denied, KnownLease, ProductFacts, Unknown, may_run
from pandacea.domain.charge import Charge, used
from pandacea.domain.ids import Address, LeaseKey
from pandacea.errors import Unavailable
from pandacea.store.books import SqlBooks
from pandacea.store.products import SqlProductBook
from pandacea.store.records import ChainRecords
from pandacea.store.session import Database

NEVER_FOLLOWED: Final = "This node has not followed the contract yet; start it once with `pandacea run`."


async def kept_records(config: Config, db: Database) -> ChainRecords:
    """The rows of the contract, with no node running.

    Raises:
        Unavailable: see `lease_rows`.
    """
    contract = parts.contract_of(config)
    records = ChainRecords(db, contract.chain_id, contract.address)
    if await records.resume() is None:
        raise Unavailable(NEVER_FOLLOWED)
    return records


async def lease_rows(config: Config) -> list[dict[str, Any]]:
    """Every approved lease of this Earner: status, terms, what is used, why its approval counts, why it would be refused now.

    Raises:
        Unavailable: the contract was not followed here yet, on the configured chain.
    """
    earner = Address(config.earner.address)
    async with AsyncExitStack() as stack:
        db = await stack.enter_async_context(parts.database(config))
        contract = parts.contract_of(config)
        follower = await stack.enter_async_context(parts.follower(config, contract, db, earner))
        if not await follower.load():
            raise Unavailable(NEVER_FOLLOWED)
        # The database as it is: whether its head may be believed is for the running node to say (GET /readyz).
        standing = replace(follower.book.standing(), distrust=None)
        offered = await SqlProductBook(db).offered_hashes()
        rows = []
        async with SqlBooks(db).read() as view:
            for lease_id in follower.book.ids():
                lease = follower.book.lease(lease_id)
                if lease is None:
                    continue
                counts = await view.jobs.counted(LeaseKey(contract.chain_id, contract.address, lease_id))
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
