"""A follower under test: its database, its endpoints, and what it believes, to be held against a rebuild from zero."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from pandacea.chain.book import Confidence, ConfidenceKind
from pandacea.chain.endpoints import Endpoints
from pandacea.chain.follower import Follower, FollowOptions
from pandacea.chain.rpc import Endpoint
from pandacea.domain.access import KnownLease
from pandacea.domain.ids import Address, LeaseId
from pandacea.domain.seen import Held
from pandacea.domain.trust import Trust
from pandacea.errors import Broken
from pandacea.flows.follow import folded
from pandacea.store.migrate import upgrade
from pandacea.store.records import ChainRecords
from pandacea.store.session import Database
from tests.chain.anvil import EARNER, Agreement

AT_ONCE = Confidence(ConfidenceKind.CONFIRMATIONS, 0)


class SystemClock:
    """The machine's."""

    def now(self) -> float:
        return time.time()


def options_for(agreement: Agreement, **more: Any) -> FollowOptions:
    """Quick settings: polls often, settles early, lets heads be old (anvil mines on demand)."""
    settings: dict[str, Any] = {
        "contract": Address(agreement.address),
        "chain_id": agreement.chain.chain_id,
        "earner": Address(EARNER.address.lower()),
        "poll_interval": 0.05,
        "settle_every": 4,
        "max_head_age": 0.0,
        "witness_interval": 0.2,
        "audit_interval": 0.05,
        "confidence": AT_ONCE,
    }
    return FollowOptions(**(settings | more))


class Node:
    """`async with Node(...)` follows until the end of the block."""

    def __init__(
        self,
        agreement: Agreement,
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

    async def __aenter__(self) -> Node:
        self.database = await Database.open(self.address)
        if not self.upgraded:
            await upgrade(self.database)
        self.endpoints = Endpoints(
            [Endpoint(url, operator=who, timeout=self.timeout) for url, who in zip(self.urls, self.operators, strict=True)],
            chain_id=self.options.chain_id,
            contract=self.options.contract,
            code_hash=await self.agreement.code_hash(),
            first_rest=0.05,
            longest_rest=0.5,
        )
        self.follower = Follower(
            self.endpoints,
            lambda chain_id: ChainRecords(self.database, chain_id, self.options.contract),
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
    def book(self) -> Any:
        return self.follower.book

    def lease(self, lease_id: str) -> KnownLease | None:
        """What memory says."""
        return self.follower.book.lease(LeaseId(lease_id))

    async def until(self, condition: Callable[[], bool], seconds: float = 20.0, what: str = "") -> None:
        """Wait for something the follower brings about; its own failure is raised at once."""
        assert self._task is not None
        end = time.monotonic() + seconds
        while not condition():
            if self._task.done():
                await self._task
            assert time.monotonic() < end, f"still not so after {seconds} s: {what} {self.follower.metrics()}"
            await asyncio.sleep(0.01)

    async def at_head(self, seconds: float = 20.0) -> None:
        """Wait until the block that is the chain's newest now was processed, by number and hash."""
        block = await self.agreement.chain.call("eth_getBlockByNumber", "latest", False)
        number, block_hash = int(block["number"], 16), block["hash"]

        def there() -> bool:
            view = self.follower.book.view
            held = None if view is None else view.at(number)
            return held is not None and held.hash == block_hash and self.follower.caught_up.is_set()

        await self.until(there, seconds, f"block {number}")

    async def proved(self, lease_id: str) -> None:
        """Wait until a lease's approval is trusted."""

        def trusted() -> bool:
            lease = self.lease(lease_id)
            return lease is not None and lease.trust in {Trust.SIGNED, Trust.AGREED, Trust.ACKNOWLEDGED}

        await self.until(trusted, what=f"proof of {lease_id}")

    async def rows(self) -> dict[str, Held]:
        """Every lease as the database has it."""
        assert self.follower.records is not None
        return await rows_of(self.follower.records)

    async def believes(self) -> tuple[dict[str, Held], dict[str, KnownLease | None]]:
        """Rows and memory; trust left out, for proving takes its own time."""
        rows = await self.rows()
        memory = {}
        for lease_id in rows:
            known = self.follower.book.peek(LeaseId(lease_id))
            memory[lease_id] = None if known is None else replace(known, trust=Trust.PENDING)
        assert len(self.follower.book) == sum(known is not None for known in memory.values()), "memory holds leases no row has"
        return rows, memory


async def rows_of(records: Any) -> dict[str, Held]:
    """Every lease in a database: settled rows, and the events above them folded in."""
    async with records.write() as tx:
        query = "SELECT lease_id FROM lease UNION SELECT lease_id FROM chain_event"
        ids = [row[0] for row in (await tx.connection.exec_driver_sql(query)).all()]
        held: dict[LeaseId, Held] = folded(await tx.settled(ids), await tx.events_of(ids), records, 0)
    for one in held.values():
        one.seen_at = 0  # a bound for pruning, not a fact: it depends on the ranges that were read
    return {str(lease_id): one for lease_id, one in held.items()}


@asynccontextmanager
async def rebuilt(agreement: Agreement, folder: Path, **options: Any) -> Any:
    """A second node that reads the same chain from zero."""
    async with AsyncExitStack() as stack:
        node = Node(agreement, folder / f"rebuilt-{time.monotonic_ns()}.db", **options)
        await stack.enter_async_context(node)
        await node.at_head()
        yield node


async def agrees_with_rebuild(node: Node, folder: Path) -> dict[str, Held]:
    """The node's rows and memory are what a rebuild from zero gives; returns the rows."""
    await node.at_head()
    mine = await node.believes()
    async with rebuilt(node.agreement, folder) as other:
        theirs = await other.believes()
    assert mine[0] == theirs[0]
    assert mine[1] == theirs[1]
    expected = {lease_id: known_from(held) for lease_id, held in mine[0].items()}
    assert mine[1] == expected, "memory is not the fold of the rows"
    return mine[0]


def known_from(held: Held) -> KnownLease | None:
    """What memory must hold of a row."""
    return None if held.lease.approved_block is None else KnownLease.of(held.lease, Trust.PENDING)


Check = Callable[[], Awaitable[None]]
