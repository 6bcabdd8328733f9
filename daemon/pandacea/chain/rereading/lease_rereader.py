"""Reads single leases again by their id (topic 1) when something says that the node was not shown all of their events."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NoReturn

import structlog

from pandacea.chain.contract_versions import ContractVersion
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.logs import LogReader
from pandacea.chain.rereading.lease_states import DENIED_STATUSES, fetch_lease_state
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import RpcFault
from pandacea.chain.source import ChainSource
from pandacea.domain.chain_view import ChainEvent
from pandacea.domain.ids import Address, LeaseId
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Unavailable
from pandacea.flows.following.backfill_check import RereadOutcome, list_contradictory_leases, load_record, rebuild_lease
from pandacea.flows.following.chain_store import ChainStore

log = structlog.get_logger(__name__)

LEASES_PER_SECOND: Final = 1.0
"""Waiting leases looked at in a second at most, however many wait: an endpoint that invents differences costs no more."""
FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 300.0
"""Between two attempts at one lease; the pause doubles from the first to the longest."""
MAX_ATTEMPTS: Final = 12
"""Attempts at one lease (about half an hour) before it is left to the slow scan."""
MAX_WAITING: Final = 10_000
SWEEP_SECONDS: Final = 600.0
"""Between two looks at the rows for contradictions; no endpoint is asked for it."""
MAX_STRANGERS: Final = 10_000
"""Ids kept of other Earners' leases, so that each is asked for once."""
STRANGERS_PER_MINUTE: Final = 30
"""Unknown leases asked for in a minute at most: on a contract that others use, too, each of their leases is unknown once."""
MOVES: Final = 5
"""Readings of one lease in a row that the follower may overtake by settling further."""


@dataclass(slots=True)
class _Waiting:
    due: float
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class LeaseDifference:
    """A lease that another reading changed; None: its creation was not known."""

    lease_id: LeaseId
    before: LeaseRecord | None
    after: LeaseRecord | None


@dataclass(slots=True)
class LeaseRereader:
    """A queue of leases to read again. A lease leaves it when rows and contract agree, or another Earner has it."""

    endpoints: EndpointPool
    source: ChainSource
    chain_store: ChainStore
    lease_cache: InMemoryLeaseCache
    contract_version: ContractVersion
    earner: Address
    deploy_block: int
    pick_second: Callable[[Endpoint], Endpoint]
    monotonic: Callable[[], float] = time.monotonic
    first_pause: float = FIRST_PAUSE_SECONDS
    longest_pause: float = LONGEST_PAUSE_SECONDS
    on_denied: Callable[[LeaseId], None] = lambda _lease_id: None
    """Called when a lease's row has come to deny it, as the contract does."""
    repaired_leases: int = 0
    """Leases of which a row gained a fact."""
    _waiting: dict[LeaseId, _Waiting] = field(default_factory=dict)
    _strangers: OrderedDict[LeaseId, None] = field(default_factory=OrderedDict)
    _stranger_minute: tuple[int, int] = (0, 0)
    """The current minute, and how many unknown leases were taken in it."""
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def enqueue_leases(self, leases: Iterable[LeaseId]) -> None:
        """Read leases of this Earner again as soon as their turn comes."""
        for lease_id in leases:
            if lease_id not in self._waiting and len(self._waiting) < MAX_WAITING:
                self._waiting[lease_id] = _Waiting(self.monotonic())
                self._wake.set()

    def enqueue_strangers(self, leases: Iterable[LeaseId]) -> None:
        """Ask the contract whose leases these are, whose creation was never seen; those of this Earner are read again."""
        if self.contract_version is not ContractVersion.V1:
            return
        for lease_id in leases:
            if lease_id in self._strangers or lease_id in self._waiting:
                continue
            minute = int(self.monotonic() // 60)
            taken = self._stranger_minute[1] if self._stranger_minute[0] == minute else 0
            if taken >= STRANGERS_PER_MINUTE:
                return
            self._stranger_minute = (minute, taken + 1)
            self.enqueue_leases([lease_id])

    async def run(self, caught_up: asyncio.Event) -> NoReturn:
        """Read the waiting leases again, one after the other, until cancelled."""
        await caught_up.wait()
        swept_at = float("-inf")
        while True:
            self._wake.clear()
            now = self.monotonic()
            if now - swept_at >= SWEEP_SECONDS:
                await self._sweep()
                swept_at = now
            due = min(self._waiting, key=lambda lease_id: self._waiting[lease_id].due, default=None)
            if due is None or self._waiting[due].due > now:
                pause = 60.0 if due is None else self._waiting[due].due - now
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass
                continue
            await self._attempt(due)
            await asyncio.sleep(min(1 / LEASES_PER_SECOND, self.first_pause))

    async def _sweep(self) -> None:
        try:
            self.enqueue_leases(await list_contradictory_leases(self.chain_store, MAX_WAITING))
        except Unavailable as problem:
            log.info("chain.reread_postponed", reason=problem.detail)

    async def _attempt(self, lease_id: LeaseId) -> None:
        waiting = self._waiting[lease_id]
        waiting.attempts += 1
        try:
            endpoint = await self.endpoints.pick_endpoint()
            if waiting.attempts % 2 == 0:
                endpoint = self.pick_second(endpoint)
            try:
                done = await self._look_at(endpoint, lease_id)
            except RpcFault as fault:
                self.endpoints.record_failure(endpoint, fault)
                raise
        except Unavailable as problem:
            log.info("chain.reread_postponed", lease_id=lease_id, reason=problem.detail)
            done, waiting.attempts = False, waiting.attempts - 1
        if done:
            del self._waiting[lease_id]
        elif waiting.attempts >= MAX_ATTEMPTS:
            log.warning("chain.reread_given_up", lease_id=lease_id, attempts=waiting.attempts)
            del self._waiting[lease_id]
        else:
            pause = self.first_pause * 2 ** max(0, waiting.attempts - 1)
            waiting.due = self.monotonic() + min(pause, self.longest_pause)

    async def _look_at(self, endpoint: Endpoint, lease_id: LeaseId) -> bool:
        """Compare one lease with the contract, and read it again where they differ; True: there is nothing left to find."""
        if self.contract_version is not ContractVersion.V1:
            await self.reread_lease(endpoint, lease_id)
            return True
        state = await fetch_lease_state(endpoint, self.source.contract, lease_id)
        if state is not None and state.earner != self.earner:
            self._strangers[lease_id] = None
            if len(self._strangers) > MAX_STRANGERS:
                self._strangers.popitem(last=False)
            return True
        record = await load_record(lease_id, self.chain_store)
        if state is None and record is None:
            return False
        if state is None or not state.equals_record(record):
            await self.reread_lease(endpoint, lease_id)
            record = await load_record(lease_id, self.chain_store)
        agreed = state is not None and state.equals_record(record)
        if agreed and state is not None and state.status in DENIED_STATUSES:
            self.on_denied(lease_id)
        return agreed

    async def reread_lease(self, endpoint: Endpoint, lease_id: LeaseId) -> LeaseDifference | None:
        """Read all events of a lease again and fold in what was missing; None: nothing was.

        Raises:
            RpcFault: the endpoint failed.
        """
        for _ in range(MOVES):
            view = self.lease_cache.chain_view
            if view is None:
                return None
            before = await load_record(lease_id, self.chain_store)
            # From its creation where that is known: providers may allow small ranges only.
            first = self.deploy_block if before is None else before.created_block
            reader = LogReader(self.source.contract, self.source.reader.topics, indexed_filters=(lease_id,))
            reader.spans[endpoint.url] = self.source.reader.max_spans.get(endpoint.url, view.tip.number - first + 1)
            history = await self._read(endpoint, reader, first, view.tip.number)
            outcome = await rebuild_lease(lease_id, history, view.base, self.chain_store, self.lease_cache)
            if outcome is RereadOutcome.CHANGED:
                return await self._note_repair(endpoint, lease_id, before)
            if outcome is RereadOutcome.UNCHANGED:
                return None
        return None

    async def reread_leases(self, lease_id: LeaseId | None) -> list[LeaseDifference]:
        """Read one lease again, or every event since the deployment, from the followed endpoint; return what changed.

        Raises:
            Unavailable: no endpoint answers now, or the database does not.
        """
        endpoint = await self.endpoints.pick_endpoint()
        try:
            if lease_id is not None:
                difference = await self.reread_lease(endpoint, lease_id)
                return [] if difference is None else [difference]
            return await self._reread_everything(endpoint)
        except RpcFault as fault:
            self.endpoints.record_failure(endpoint, fault)
            raise

    async def _reread_everything(self, endpoint: Endpoint) -> list[LeaseDifference]:
        view = self.lease_cache.chain_view
        if view is None:
            raise Unavailable("The node has not read the chain yet. Try again in a moment.")
        histories: dict[LeaseId, list[ChainEvent]] = {}
        for seen in await self._read(endpoint, self.source.reader, self.deploy_block, view.tip.number):
            histories.setdefault(seen.event.lease_id, []).append(seen)
        differences = []
        for lease_id, history in histories.items():
            before = await load_record(lease_id, self.chain_store)
            outcome = await rebuild_lease(lease_id, history, view.base, self.chain_store, self.lease_cache)
            found = None
            if outcome is RereadOutcome.CHANGED:
                found = await self._note_repair(endpoint, lease_id, before)
            elif outcome is RereadOutcome.OVERTAKEN:
                found = await self.reread_lease(endpoint, lease_id)
            if found is not None:
                differences.append(found)
        return differences

    async def _note_repair(self, endpoint: Endpoint, lease_id: LeaseId, before: LeaseRecord | None) -> LeaseDifference:
        self.repaired_leases += 1
        self.source.counters.rebuilt_leases += 1
        log.warning("chain.lease_rebuilt", lease_id=lease_id, endpoint=endpoint.name)
        return LeaseDifference(lease_id, before, await load_record(lease_id, self.chain_store))

    async def _read(self, endpoint: Endpoint, reader: LogReader, first: int, last: int) -> list[ChainEvent]:
        events: list[ChainEvent] = []
        async for logs in reader.read_ranges(endpoint, first, last):
            events.extend(await self.source.decode_events(endpoint, logs))
        return events
