"""An RPC endpoint sends one log whose lease id is no hex: the node ends, and so does every later start with the same database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pandacea.domain.ids import LeaseId
from pandacea.store.chain_store import SqlChainStore
from tests.chain.anvil import SPENDER, Anvil
from tests.chain.node import FollowingNode, assert_equals_rebuild
from tests.faults.proxy import FaultProxy

NO_ID = "0x" + "zz" * 32


def swapped(lease: str, value: str) -> Any:
    """Put something else where a lease's id stands."""

    def change(method: str, _params: list[Any], result: Any) -> Any:
        if method != "eth_getLogs":
            return result
        return [one | {"topics": [value if topic == lease else topic for topic in one["topics"]]} for one in result]

    return change


POISON: dict[str, Callable[[str], Any]] = {
    "an id that is no hex": lambda lease: swapped(lease, NO_ID),
    "an id that is too long": lambda lease: swapped(lease, lease + "00"),
    "an id of other digits": lambda lease: swapped(lease, "0x" + "\u0661" * 64),
    "a computation that is no hex": lambda _: data_of("0x" + "zz" * 32),
    "a price of a million digits": lambda _: data_of("0x" + "9" * 1_000_000),
    "an expiry beyond its type": lambda _: data_of("0x" + "f" * 128),
    "an address of 32 bytes": lambda _: swapped("0x" + SPENDER.address[2:].lower().rjust(64, "0"), "0x" + "f" * 64),
}


def data_of(value: str) -> Any:
    return lambda method, _params, result: [one | {"data": value} for one in result] if method == "eth_getLogs" else result


@pytest.mark.parametrize("poison", POISON)
async def test_one_log_stops_nothing_but_itself(anvil: Anvil, tmp_path: Path, poison: str) -> None:
    """The process lives, nothing of it is kept, and with an honest answer the same process goes on as if nothing had been."""
    agreement = await anvil.deploy_agreement()
    good = await agreement.create()
    await agreement.approve(good)
    async with FaultProxy(anvil.url) as proxy, FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
        await node.wait_for_proof(good)
        lease = await agreement.create(price=7)
        proxy.after.append(POISON[poison](lease))
        await agreement.approve(lease)
        await agreement.commit(lease, "0x" + "c1" * 32)
        counted = asked(proxy)
        await node.wait_until(lambda: asked(proxy) > counted + 4, what="the poison was read, more than once")
        assert set(await node.read_rows()) <= {good, lease}
        proxy.after.clear()
        await node.wait_for_proof(lease)
        await assert_equals_rebuild(node, tmp_path)


def asked(proxy: FaultProxy) -> int:
    return sum(method == "eth_getLogs" for method, _ in proxy.calls)


async def test_a_database_that_holds_it_already_opens(anvil: Anvil, tmp_path: Path) -> None:
    """Rows and events as an earlier version kept them: skipped with an alarm, and everybody else is served."""
    agreement = await anvil.deploy_agreement()
    good = await agreement.create()
    await agreement.approve(good)
    await anvil.mine_blocks(12)
    path = tmp_path / "node.db"
    async with FollowingNode(agreement, path) as node:
        await node.wait_for_proof(good)
        await node.wait_until(lambda: node.view.base.number > 8, what="the lease is settled")
        records = node.follower.chain_store
        assert isinstance(records, SqlChainStore)
        async with records.unit_of_work() as tx:
            await tx.connection.exec_driver_sql(COPY_LEASE, (NO_ID, good))
            block = node.view.tip
            for place, (kind, arguments) in enumerate(
                [("LeaseApproved", f'["{NO_ID}"]'), ("ResultCommitted", f'["{good}", "0xzz", "0xzz"]')]
            ):
                values = (
                    records.scope.id,
                    block.hash,
                    place,
                    block.number,
                    good if place else NO_ID,
                    kind,
                    arguments,
                )
                await tx.connection.exec_driver_sql(INSERT_EVENT, values)
            await tx.commit()
    async with FollowingNode(agreement, path) as node:
        await node.wait_for_head()
        await node.wait_for_proof(good)
        assert [str(lease_id) for lease_id in node.lease_cache.list_ids()] == [good]
        assert node.lease_cache.peek(LeaseId(NO_ID)) is None
        await anvil.mine_blocks(12)
        await node.wait_until(lambda: node.view.base.number > 20, what="the block with the events is settled")
        other = await agreement.create(price=9)
        await agreement.approve(other)
        await node.wait_for_proof(other)


COPY_LEASE = (
    "INSERT INTO lease SELECT deployment, ?, spender, earner, price, created_block, status, data_product_id, expires_at, "
    "max_computations, committed, approved_block, executed_block, cancelled_block, finalized_block, disputed_block, resolved_block, "
    "resolved_for_spender, approved_tx, seen_at FROM lease WHERE lease_id = ?"
)
INSERT_EVENT = (
    "INSERT INTO chain_event (deployment, block_hash, log_index, part, block_number, tx_hash, lease_id, kind, arguments) "
    "VALUES (?, ?, ?, 0, ?, '0x', ?, ?, ?)"
)
