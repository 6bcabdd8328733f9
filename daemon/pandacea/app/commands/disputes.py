"""`pandacea disputes`: the leases that a Spender disputed, from the database; reason and time of each from the chain."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from pandacea.app import factories
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc_messages import parse_data
from pandacea.config import Config
from pandacea.domain.ids import Address, LeaseId
from pandacea.domain.lease import Lease
from pandacea.domain.printable import printable
from pandacea.errors import Unavailable
from pandacea.flows.following.follow import load_all_leases
from pandacea.store.products import SqlProductStore
from pandacea_sdk.protocol.contract import lease_agreement

ARBITRATION_SECONDS: Final = 30 * 86_400
"""The arbiter decides until so long after the dispute was raised; later anyone may have the price split."""
REASON_CHARACTERS: Final = 500
"""Characters of a Spender's reason that are shown."""


@dataclass(frozen=True, slots=True)
class DisputedLease:
    """One dispute; times in Unix seconds, None where no endpoint answers."""

    lease_id: LeaseId
    spender: Address
    product: str | None
    price_wei: int
    committed: int
    max_computations: int
    status: str
    is_open: bool
    won_by_spender: bool | None
    """None: it is open, or a cancellation ended it."""
    disputed_block: int
    raised_at: int | None
    reason: str | None


async def list_disputes(config: Config) -> list[DisputedLease]:
    """List every disputed lease of this Earner, open ones first, then the newest.

    Raises:
        Unavailable: the contract has not been followed here yet.
    """
    earner = Address(config.earner.address)
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(factories.open_database(config))
        store = await factories.open_chain_store(config, engine)
        leases = [record.lease for record in await load_all_leases(store)]
        follower = await stack.enter_async_context(
            factories.open_follower(config, factories.resolve_contract(config), engine, earner)
        )
        products = SqlProductStore(engine)
        found = [await _describe(lease, products, follower.endpoints) for lease in leases if lease.disputed_block is not None]
    return sorted(found, key=lambda one: (not one.is_open, -one.disputed_block, one.lease_id))


async def _describe(lease: Lease, products: SqlProductStore, endpoints: EndpointPool) -> DisputedLease:
    assert lease.disputed_block is not None  # the caller looked
    try:
        raised_at, reason = await _find_reason(lease, lease.disputed_block, endpoints)
    except (Unavailable, ValueError):
        raised_at, reason = None, None
    product = lease.data_product_id
    return DisputedLease(
        lease.key.lease_id,
        lease.spender,
        None if product is None else await products.find_offered_id(product) or product,
        lease.price,
        lease.committed_count,
        lease.max_computations,
        lease.status.value,
        lease.in_dispute,
        lease.resolved_for_spender,
        lease.disputed_block,
        raised_at,
        reason,
    )


async def _find_reason(lease: Lease, number: int, endpoints: EndpointPool) -> tuple[int | None, str | None]:
    """Read of the dispute's block when it was raised, and the Spender's words: a stranger's text."""
    agreement, endpoint = lease_agreement(), await endpoints.pick_endpoint()
    reader = LogReader(lease.key.contract, [agreement.event_topic("DisputeRaised")], (lease.key.lease_id,))
    _, logs = await reader.read_range(endpoint, number, number)
    block = await endpoint.call_method("eth_getBlockByNumber", [hex(number), False], dict[str, object])
    raised_at = int(str(block["timestamp"]), 16) if "timestamp" in block else None
    for log in logs:
        if log.topics[1] == lease.key.lease_id:
            event = agreement.decode_event([parse_data(topic) for topic in log.topics], parse_data(log.data))
            if event is not None:
                return raised_at, printable(str(event.values["reason"]), limit=REASON_CHARACTERS)
    return raised_at, None
