"""The endpoints that are not followed are read from the deployment on: within a budget, never twice, and near the head first."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from pandacea.chain.confidence import Confidence, ConfidenceKind
from pandacea.chain.cross_check import RANGES_PER_ROUND, CrossCheck
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.domain.chain_view import NO_HASH, BlockRef, ChainView
from pandacea.domain.ids import Address, BlockNumber, Hash32, LeaseId, Timestamp
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.database_engine import DatabaseEngine
from tests.chain.emitter import TOPIC
from tests.chain.simulated import CONTRACT, SimulatedChain, SimulatedEndpoint
from tests.fakes import CHAIN_ID, EARNER, FakeClock, cached_lease

OLD, NEW = LeaseId("0x" + "01" * 32), LeaseId("0x" + "02" * 32)
RANGE = 10
"""Blocks that the endpoint allows in one request, as a free tier does."""


def cancelled(lease: LeaseId) -> tuple[tuple[str, ...], str]:
    return (TOPIC["LeaseCancelled"], lease), "0x"


class FreeTier(SimulatedEndpoint):
    """Ten blocks a request; fails once `fails_in` more requests for logs were answered."""

    def __init__(self, chain: SimulatedChain) -> None:
        super().__init__(chain, random.Random(1))
        self.url = self.name = "http://other:1/key"
        self.ranges: list[tuple[int, int]] = []
        self.fails_in: int | None = None

    def _answer(self, method: str, params: list[Any]) -> Any:
        if method == "eth_getLogs":
            first, last = int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16)
            if last - first + 1 > RANGE:
                raise RpcFault(FaultKind.RANGE, self.name, method, "range too large")
            if self.fails_in == 0:
                raise RpcFault(FaultKind.NETWORK, self.name, method, "gone")
            if self.fails_in is not None:
                self.fails_in -= 1
            self.ranges.append((first, last))
        return super()._answer(method, params)


class KnownLeases(InMemoryLeaseCache):
    """Knows both leases as approved."""

    def peek(self, lease_id: LeaseId) -> Any:
        return cached_lease(lease_id=lease_id)


class TwoChains:
    """A chain of 1000 blocks, settled to 960; OLD is cancelled in block 900, NEW in block 990."""

    def __init__(self, database: DatabaseEngine) -> None:
        self.chain = SimulatedChain(finality=40)
        for number in range(1, 1001):
            self.chain.mine([cancelled(OLD)] if number == 900 else [cancelled(NEW)] if number == 990 else [])
        self.followed, self.other = SimulatedEndpoint(self.chain, random.Random(1)), FreeTier(self.chain)
        self.pool = EndpointPool(
            [self.followed, self.other],
            chain_id=CHAIN_ID,
            contract=CONTRACT,
            code_hash=Hash32(NO_HASH),
            first_backoff=0,
            max_backoff=0,
        )
        self.store = SqlChainStore(database, CHAIN_ID, CONTRACT)
        self.restart()

    def restart(self) -> None:
        """Forget what is in memory."""
        for endpoint in self.pool.members:
            endpoint.verified = True
        self.cache = KnownLeases(FakeClock(), Confidence(ConfidenceKind.SAFE))
        self.settle(960)
        self.check = CrossCheck(self.pool, self.cache, Address(CONTRACT), 0, self.store)

    def settle(self, number: int) -> None:
        block = self.chain.blocks[number]
        self.cache.chain_view = ChainView(
            BlockRef(BlockNumber(number), Hash32(block.hash), NO_HASH, Timestamp(1_700_000_000 + number))
        )

    async def round(self) -> int:
        """One round; returns how many ranges were answered."""
        before = len(self.other.ranges)
        self.other.verified = True
        await self.check.check_endpoints()
        return len(self.other.ranges) - before

    async def rounds_until(self, *leases: LeaseId) -> int:
        """Rounds until exactly these leases are contested."""
        for number in range(1, 20):
            await self.round()
            if self.cache.list_contested() == frozenset(leases):
                return number
        raise AssertionError(f"after 20 rounds: {self.cache.list_contested()}")


@pytest.fixture
async def world(database: DatabaseEngine) -> TwoChains:
    """A contract that is followed from block 0."""
    built = TwoChains(database)
    await built.store.open_deployment(EARNER, "v1", 0, BlockRef(BlockNumber(-1), NO_HASH, NO_HASH, Timestamp(0)))
    return built


async def test_a_denial_near_the_head_is_seen_in_the_first_round_and_old_ones_within_the_budget(world: TwoChains) -> None:
    """A hundred and twenty ranges of history, sixteen a round; what is not settled is read every round beside them."""
    assert await world.round() <= 2 * RANGES_PER_ROUND
    assert world.cache.list_contested() == {NEW}
    assert await world.rounds_until(OLD, NEW) <= 7
    settled = [first for first, last in world.other.ranges if last <= 960]
    assert len(settled) == len(set(settled)), "nothing below finality is read twice"


async def test_a_fault_keeps_what_was_read_before_it(world: TwoChains) -> None:
    """It used to begin again from the deployment, and so with one fault in each pass it never ended."""
    world.other.fails_in = 7
    assert await world.round() == 7
    world.other.fails_in = None
    await world.round()
    settled = [first for first, last in world.other.ranges if last <= 960]
    assert settled == sorted(set(settled))


async def test_a_restart_goes_on_where_it_was(world: TwoChains) -> None:
    """A denial that was found stands from the first round on; at most 512 blocks without any are read again."""
    await world.rounds_until(OLD, NEW)
    while (await world.round()) > 4:
        pass
    world.other.ranges.clear()
    world.restart()
    await world.round()
    assert world.cache.list_contested() == {OLD, NEW}
    assert min(first for first, _ in world.other.ranges) > 400


async def test_a_denial_that_was_near_the_head_is_not_forgotten_when_it_becomes_final(world: TwoChains) -> None:
    """Although the history before it has not been read yet."""
    await world.round()
    for _ in range(40):
        world.chain.mine([])
    world.settle(1000)
    await world.round()
    assert NEW in world.cache.list_contested()


async def test_a_denial_that_a_reorganisation_removed_is_withdrawn(world: TwoChains) -> None:
    """What is above finality is read anew in every round."""
    await world.round()
    assert world.cache.list_contested() == {NEW}
    world.chain.drop_blocks(20)
    for _ in range(21):
        world.chain.mine([])
    await world.round()
    assert world.cache.list_contested() == set()


async def test_the_url_is_not_in_the_database(world: TwoChains, tmp_path: Path) -> None:
    """It may hold a key."""
    await world.rounds_until(OLD, NEW)
    async with world.store.read_connection() as connection:
        rows = (await connection.exec_driver_sql("SELECT endpoint FROM cross_check")).all()
    assert len(rows) == 1
    assert "key" not in rows[0][0]
    assert len(rows[0][0]) == 64
