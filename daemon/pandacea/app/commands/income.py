"""`pandacea income`: what the Earner's leases brought and cost, from the database, beside a running node or without one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack

from pandacea.app import factories
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc_messages import parse_data
from pandacea.chain.sending.attempts import FILL
from pandacea.chain.sending.calldata import commitments_in
from pandacea.config import Config
from pandacea.domain.chain_view import ChainView
from pandacea.domain.ids import Address, Hash32, LeaseId
from pandacea.domain.lease import Lease, LeaseStatus
from pandacea.flows.following.chain_store import SentTransaction
from pandacea.flows.following.follow import load_all_leases
from pandacea.flows.settlement.income import GasCost, IncomeRow, LeaseIncome, sum_income
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.products import SqlProductStore
from pandacea.store.sent_transactions import SqlSentTransactionStore
from pandacea_sdk.protocol.contract import lease_agreement


async def load_income(config: Config) -> list[IncomeRow]:
    """Add up what the leases of this Earner brought and cost. Only a lease that a dispute ended is asked of the chain.

    Raises:
        Unavailable: the contract has not been followed here yet, or no endpoint answers for a lease that a dispute ended.
    """
    earner = Address(config.earner.address)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(factories.open_database(config))
        store = await factories.open_chain_store(config, engine)
        view = await store.find_view()
        assert view is not None  # open_chain_store looked
        follower = await stack.enter_async_context(
            factories.open_follower(config, factories.resolve_contract(config), engine, earner)
        )
        leases = [
            LeaseIncome(lease, created_at, await _find_credit(lease, earner, follower.endpoints))
            for lease, created_at in await _load_approved(store, view)
        ]
        sent = await SqlSentTransactionStore(engine).list_mined(store.chain_id)
        return sum_income(leases, map(_gas_cost, sent), await _list_names(SqlProductStore(engine), leases))


async def _load_approved(store: SqlChainStore, view: ChainView) -> Sequence[tuple[Lease, int]]:
    """Return each lease that was ever approved, and when it was created (Unix seconds; a block's time at or after it)."""
    found = []
    for record in await load_all_leases(store):
        if record.approved_block is not None:
            block = view.block_at(record.created_block)
            found.append((record.lease, block.timestamp if block is not None else record.seen_at or int(time.time())))
    return found


async def _find_credit(lease: Lease, earner: Address, endpoints: EndpointPool) -> int:
    """Return what the contract credited to the Earner for a lease, in wei."""
    if lease.status is LeaseStatus.FINALIZED:
        return lease.price
    if lease.status is not LeaseStatus.SETTLED or lease.resolved_block is None:
        return 0
    # Price and stake, or a half of the price, or nothing: the rows do not say which.
    indexed = (lease.key.lease_id, "0x" + earner[2:].rjust(64, "0"))
    reader = LogReader(lease.key.contract, [lease_agreement().event_topic("Credited")], indexed)
    _, logs = await reader.read_range(await endpoints.pick_endpoint(), lease.resolved_block, lease.resolved_block)
    return sum(int.from_bytes(parse_data(log.data)) for log in logs if log.topics[1:] == list(indexed))


def _gas_cost(row: SentTransaction) -> GasCost:
    leases = tuple(one.lease_id for one in commitments_in(row.raw))
    if not leases and not row.purpose.startswith(FILL):
        leases = (LeaseId(row.purpose.split(":")[1]),)
    return GasCost(row.max_cost if row.paid is None else row.paid, leases, row.at, is_bound=row.paid is None)


async def _list_names(products: SqlProductStore, leases: Iterable[LeaseIncome]) -> dict[Hash32, str]:
    hashes = {one.lease.data_product_id for one in leases if one.lease.data_product_id is not None}
    names = {product: await products.find_offered_id(product) for product in hashes}
    return {product: name for product, name in names.items() if name is not None}
