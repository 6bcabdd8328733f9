"""A follower under test with its database and endpoints; its rows and cache are compared with a rebuild from zero."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from pandacea.chain.confidence import Confidence, ConfidenceKind
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.follow_options import FollowOptions
from pandacea.chain.follower import Follower
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.rereading.parts import RereadOptions
from pandacea.chain.rpc import Endpoint
from pandacea.clock import SystemClock
from pandacea.domain.access import AccessDecision, CachedLease, ProductFacts, may_run
from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.chain_view import ChainView
from pandacea.domain.ids import Address, AssetId, Hash32, LeaseId
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Broken
from pandacea.flows.following.follow import fold_events
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from tests.chain.anvil import EARNER, PRODUCT, AnvilAgreement

AT_ONCE = Confidence(ConfidenceKind.CONFIRMATIONS, 0)


def options_for(agreement: AnvilAgreement, **more: Any) -> FollowOptions:
    """Return quick settings: polls often, settles early, accepts old heads (anvil mines on demand)."""
    settings: dict[str, Any] = {
        "contract": Address(agreement.address),
        "chain_id": agreement.chain.chain_id,
        "earner": Address(EARNER.address.lower()),
        "poll_interval": 0.05,
        "settle_every": 4,
        "max_head_age": 0.0,
        "cross_check_interval": 0.2,
        "reread": RereadOptions(range_interval=0.05),
        "confidence": AT_ONCE,
    }
    return FollowOptions(**(settings | more))


class FollowingNode:
    """`async with FollowingNode(...)` follows until the end of the block."""

    def __init__(
        self,
        agreement: AnvilAgreement,
        place: Path | str,
        *,
        urls: Sequence[str] = (),
        operators: Sequence[str | None] = (),
        timeout: float = 2.0,
        upgraded: bool = False,
        **options: Any,
    ) -> None:
        """`place`: a database URL, or the SQLite file, `upgraded` when its schema is there; `urls`: the chain's own by default.

        `operators`: who runs each of them, None: told by its host name; by default each has one of its own.
        """
        self.upgraded = upgraded
        self.agreement = agreement
        self.address = place if isinstance(place, str) else f"sqlite+aiosqlite:///{place}"
        self.urls = tuple(urls) or (agreement.chain.url,)
        self.operators = tuple(operators) or tuple(f"operator {place}" for place in range(len(self.urls)))
        self.timeout = timeout
        self.options = options_for(agreement, **options)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> FollowingNode:
        self.database = await DatabaseEngine.open(self.address)
        if not self.upgraded:
            await upgrade(self.database)
        self.endpoints = EndpointPool(
            [Endpoint(url, operator=who, timeout=self.timeout) for url, who in zip(self.urls, self.operators, strict=True)],
            chain_id=self.options.chain_id,
            contract=self.options.contract,
            code_hash=await self.agreement.code_hash(),
            first_backoff=0.05,
            max_backoff=0.5,
        )
        self.follower = Follower(
            self.endpoints,
            lambda chain_id: SqlChainStore(self.database, chain_id, self.options.contract),
            SystemClock(),
            self.options,
        )
        self._task = asyncio.create_task(self.follower.run())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError, Broken):  # what it ended with, the test has seen
            await self._task
        await self.endpoints.close()
        await self.database.close()

    @property
    def lease_cache(self) -> InMemoryLeaseCache:
        return self.follower.lease_cache

    @property
    def view(self) -> ChainView:
        """The part of the chain that the cache answers for."""
        view = self.follower.lease_cache.chain_view
        assert view is not None
        return view

    def known_lease(self, lease_id: str) -> CachedLease | None:
        """Find a lease in the cache."""
        return self.follower.lease_cache.find_lease(LeaseId(lease_id))

    def decide_run(self, lease_id: str, caller: str) -> AccessDecision:
        """Decide whether this caller may now run on the one asset of the lease's product."""
        return may_run(
            self.known_lease(lease_id),
            self.lease_cache.chain_status(),
            caller=Address(caller.lower()),
            earner=Address(EARNER.address.lower()),
            product=ProductFacts(PRODUCT, frozenset({AssetId("a")}), Hash32("v")),
            assets=[AssetId("a")],
            product_version=None,
            used=0,
            reserved=0,
            time_limit=60,
            clock=0,
        )

    async def wait_until(self, condition: Callable[[], bool], seconds: float = 20.0, what: str = "") -> None:
        """Wait for a condition that the follower brings about; its own failure is raised at once."""
        assert self._task is not None
        end = time.monotonic() + seconds
        while not condition():
            if self._task.done():
                await self._task
            assert time.monotonic() < end, f"still not so after {seconds} s: {what} {self.follower.collect_metrics()}"
            await asyncio.sleep(0.01)

    async def wait_for_head(self, seconds: float = 20.0) -> None:
        """Wait until the chain's current head was processed, by number and hash."""
        block = await self.agreement.chain.call_method("eth_getBlockByNumber", "latest", False)
        number, block_hash = int(block["number"], 16), block["hash"]

        def there() -> bool:
            view = self.follower.lease_cache.chain_view
            held = None if view is None else view.block_at(number)
            return held is not None and held.hash == block_hash and self.follower.caught_up.is_set()

        await self.wait_until(there, seconds, f"block {number}")

    async def wait_for_proof(self, lease_id: str) -> None:
        """Wait until a lease's approval is proved."""

        def trusted() -> bool:
            lease = self.known_lease(lease_id)
            return lease is not None and lease.proof_status in {ProofStatus.SIGNED, ProofStatus.AGREED, ProofStatus.ACKNOWLEDGED}

        await self.wait_until(trusted, what=f"proof of {lease_id}")

    async def read_rows(self) -> dict[str, LeaseRecord]:
        """Read every lease of the database."""
        assert isinstance(self.follower.chain_store, SqlChainStore)
        return await read_lease_rows(self.follower.chain_store)

    async def rows_and_cache(self) -> tuple[dict[str, LeaseRecord], dict[str, CachedLease | None]]:
        """Read rows and cache; proof statuses left out, because proving takes its own time."""
        rows = await self.read_rows()
        memory = {}
        for lease_id in rows:
            known = self.follower.lease_cache.peek(LeaseId(lease_id))
            memory[lease_id] = None if known is None else replace(known, proof_status=ProofStatus.PENDING)
        assert len(self.follower.lease_cache) == sum(known is not None for known in memory.values()), (
            "memory holds leases no row has"
        )
        return rows, memory


async def read_lease_rows(chain_store: SqlChainStore) -> dict[str, LeaseRecord]:
    """Read every lease of a database: settled rows with the events above them folded in."""
    async with chain_store.unit_of_work() as tx:
        query = "SELECT lease_id FROM lease UNION SELECT lease_id FROM chain_event"
        ids = [row[0] for row in (await tx.connection.exec_driver_sql(query)).all()]
        records = fold_events(await tx.leases.load_settled(ids), await tx.chain.list_events(ids), chain_store, 0)
    for record in records.values():
        record.seen_at = 0  # a bound for pruning, not a fact: it depends on the ranges that were read
    return {str(lease_id): record for lease_id, record in records.items()}


@asynccontextmanager
async def rebuilt_node(agreement: AnvilAgreement, folder: Path, **options: Any) -> AsyncIterator[FollowingNode]:
    """Run a second node that reads the same chain from zero."""
    async with AsyncExitStack() as stack:
        node = FollowingNode(agreement, folder / f"rebuilt-{time.monotonic_ns()}.db", **options)
        await stack.enter_async_context(node)
        await node.wait_for_head()
        yield node


async def assert_equals_rebuild(node: FollowingNode, folder: Path) -> dict[str, LeaseRecord]:
    """Assert that the node's rows and cache equal a rebuild from zero; return the rows."""
    await node.wait_for_head()
    mine = await node.rows_and_cache()
    async with rebuilt_node(node.agreement, folder) as other:
        theirs = await other.rows_and_cache()
    assert mine[0] == theirs[0]
    assert mine[1] == theirs[1]
    expected = {lease_id: expected_known_lease(held) for lease_id, held in mine[0].items()}
    assert mine[1] == expected, "memory is not the fold of the rows"
    return mine[0]


def expected_known_lease(held: LeaseRecord) -> CachedLease | None:
    """Return what the cache must hold of a row."""
    return None if held.lease.approved_block is None else CachedLease.from_lease(held.lease, ProofStatus.PENDING)
