"""The follower: endpoints, book and rows put together, and the one loop that start and steady state share."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import structlog

from pandacea.chain.audit import Audit
from pandacea.chain.book import AT_SAFE, Clock, Confidence, LeaseBookInMemory
from pandacea.chain.endpoints import Endpoints
from pandacea.chain.faults import RpcFault
from pandacea.chain.interfaces import V0, Interface, find_deploy_block, find_interface
from pandacea.chain.logs import LogReader
from pandacea.chain.metrics import Metrics, snapshot
from pandacea.chain.proof import Prover
from pandacea.chain.proving import Proving
from pandacea.chain.pruning import Pruning
from pandacea.chain.rpc import Endpoint
from pandacea.chain.silent import SilentDisputes
from pandacea.chain.source import SETTLE_EVERY, ChainSource, FinalityViolatedError
from pandacea.chain.spender_keys import SpenderKeys
from pandacea.chain.wakes import WebSocketWakes
from pandacea.chain.witness import Witnesses
from pandacea.domain.ids import Address, LeaseId
from pandacea.domain.seen import Step, View
from pandacea.errors import Broken, Unavailable
from pandacea.flows.background import run_together
from pandacea.flows.follow import Telling, refresh, take
from pandacea.flows.records import ChainRecords

log = structlog.get_logger(__name__)

WATCHDOG_FACTOR: Final = 4
"""Poll this many times less often while a WebSocket tells of new blocks."""


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """What to follow, and how. Times in seconds."""

    contract: Address
    earner: Address
    chain_id: int
    authorities: frozenset[Address] = frozenset()
    """Addresses besides the Earner's whose signature approves: this node's own operator key."""
    deploy_block: int | None = None
    """None: found by asking for the contract's code at earlier blocks."""
    confidence: Confidence = AT_SAFE
    poll_interval: float = 1.0
    max_head_age: float = 300.0
    max_silence: float = 60.0
    settle_every: int = SETTLE_EVERY
    witness_interval: float = 15.0
    audit_interval: float = 1.0
    wallets: frozenset[Address] = frozenset()
    """Spenders that the operator says are contract wallets."""
    ws_url: str | None = None
    """A WebSocket endpoint: wakes, nothing more."""
    announce: bool = False
    """Put life-cycle messages into the outbox (a broker is configured)."""


class Follower:
    """Follows one LeaseAgreement for one Earner."""

    def __init__(self, endpoints: Endpoints, records: Callable[[int], ChainRecords], clock: Clock, options: FollowOptions) -> None:
        """`records`: the rows of the contract on a chain, once the chain id is known."""
        self.endpoints = endpoints
        self.options = options
        self.book = LeaseBookInMemory(clock, options.confidence, max_head_age=options.max_head_age, max_silence=options.max_silence)
        self._records_of = records
        self._clock = clock
        self.wake = asyncio.Event()
        """Set by whoever has heard of a new block: look now."""
        self.caught_up = asyncio.Event()
        """Set once the newest block an endpoint shows was processed."""
        self.looked = asyncio.Event()
        """Set once the endpoints were asked for the first time, whether one answered or none."""
        self.records: ChainRecords | None = None
        self.source: ChainSource | None = None
        self.proving: Proving | None = None
        self.interface: Interface | None = None
        self._view: View | None = None
        self._pruning: Pruning | None = None
        self._silent: SilentDisputes | None = None
        self.witnesses: Witnesses | None = None
        self.audit: Audit | None = None
        self.spender_keys: SpenderKeys | None = None
        self.wakes = None if options.ws_url is None else WebSocketWakes(options.ws_url, self.wake.set)
        self.steps = 0

    # -- start

    async def load(self) -> bool:
        """Fill the book from the database, before any endpoint was asked; False: nothing was ever followed here.

        The answers are complete from here on, but nothing is believed before an endpoint confirms the head.
        """
        self.records = self._records_of(self.options.chain_id)
        view = await self.records.resume()
        if view is None:
            return False
        await self._fill(view)
        return True

    async def start(self) -> None:
        """Check the endpoints, find the interface, resume from the database.

        Raises:
            Broken: an endpoint is not ours or the address is no LeaseAgreement; names which and what to do.
            Unavailable: no endpoint answers, or the database does not.
        """
        await self.endpoints.verify_all()
        endpoint = await self.endpoints.pick()
        options = self.options
        chain_id = options.chain_id
        self.records = self._records_of(chain_id)
        try:
            self.interface = await find_interface(endpoint, options.contract, options.earner)
            view = await self.records.resume()
            deploy = self.records.deploy_block if view is not None else options.deploy_block
            if deploy is None:
                deploy = await find_deploy_block(endpoint, options.contract)
            self.source = self._source(self.records, self.interface)
            start = await self.source.start_block(endpoint, deploy)
        except RpcFault as fault:
            self.endpoints.failed(endpoint, fault)
            raise
        view = await self.records.begin(options.earner, self.interface, deploy, start)
        self.proving = Proving(
            Prover(options.contract, chain_id, self.interface, options.earner, options.authorities, deploy),
            self.endpoints,
            self.records,
            self.book,
            self._clock.now,
        )
        self.spender_keys = SpenderKeys(self.endpoints, self.records, self.book, options.contract, self._clock.now, options.wallets)
        if self.interface is Interface.V1:
            self._pruning = Pruning(self.records)
        else:
            self._silent = SilentDisputes(self.endpoints, self.book, options.contract)
        self.witnesses = Witnesses(self.endpoints, self.book, options.contract, deploy)
        self.audit = Audit(self.endpoints, self.source, self.records, self.book, self._second, deploy)
        self.book.wanted = self.proving.want
        if view != self._view:
            await self._fill(view)
        # What was imported and loaded so far lives as long as the process: the collector need not walk it for every range.
        gc.freeze()
        log.info("chain.following", chain=chain_id, contract=options.contract, interface=self.interface, block=view.tip.number)

    def _source(self, records: ChainRecords, interface: Interface) -> ChainSource:
        options = self.options
        completer = None
        if interface is Interface.V0:
            completer = V0(options.contract, options.earner, options.authorities | {options.earner}, records.known)
        return ChainSource(
            options.contract,
            options.earner,
            LogReader(options.contract),
            completer,
            self._second,
            settle_every=options.settle_every,
            heard=self.book.heard,
        )

    def _second(self, endpoint: Endpoint) -> Endpoint:
        others = [*self.endpoints.independent_of(endpoint), *self.endpoints.others(endpoint)]
        return next((one for one in others if one.verified), endpoint)

    async def _fill(self, view: View) -> None:
        assert self.records is not None
        self.book.trouble = "it is reading its database."
        self.book.clear()
        with collector_at_rest():
            async for page in self.records.approved():
                self.book.load(page)
                await asyncio.sleep(0)
        await refresh(await self.records.touched(), view, self.records, self.book)
        self._view = view
        # What happened while the node was down is not known before the head was reached once.
        self.book.trouble = None if self.caught_up.is_set() else "it has not caught up with the chain since it started."
        if self.caught_up.is_set():
            self._prove_what_may_be_used()

    # -- the loop

    async def run(self) -> None:
        """Follow for ever. Faults of endpoints and database are waited out; only what the operator must mend is raised.

        Raises:
            Broken: see `start`.
        """
        while True:
            try:
                if self._view is None:
                    await self.load()
                await self.start()
            except Unavailable as problem:
                self.book.trouble = problem.detail
                log.warning("chain.cannot-start", because=problem.detail)
                self.looked.set()
                await asyncio.sleep(max(1.0, self.endpoints.wait()))
            else:
                self.looked.set()
                break
        assert self.proving is not None
        assert self.witnesses is not None
        assert self.audit is not None
        assert self.spender_keys is not None
        parts: dict[str, Coroutine[Any, Any, Any]] = {
            "chain-follow": self._follow(),
            "chain-proving": self.proving.run(self.caught_up),
            "chain-spender-keys": self.spender_keys.run(self.caught_up),
            "chain-witnesses": self.witnesses.run(self.options.witness_interval),
            "chain-audit": self.audit.run(self.options.audit_interval, self.caught_up),
        }
        if self._silent is not None:
            parts["chain-silent"] = self._silent.run(self.options.witness_interval, self.caught_up)
        if self.wakes is not None:
            parts["chain-wakes"] = self.wakes.run()
        await run_together(parts)

    async def _follow(self) -> None:
        woken = True
        while True:
            before = self._view
            with nullcontext() if self.caught_up.is_set() else collector_at_rest():
                again = await self.turn()
            if again:
                continue
            if not woken and self.wakes is not None and self._view is not before:
                self.wakes.missed()
            # While the socket speaks, polling is only its watchdog.
            slow = self.wakes is not None and self.wakes.alive
            woken = await self._pause(self.options.poll_interval * (WATCHDOG_FACTOR if slow else 1))

    async def turn(self) -> bool:
        """One step if there is one; True: look again at once."""
        self.wake.clear()
        try:
            endpoint = await self.endpoints.pick()
        except Unavailable as problem:  # an RpcFault too
            log.debug("chain.nobody-to-ask", because=problem.detail)
            await asyncio.sleep(min(max(0.05, self.endpoints.wait()), 5.0))
            return True
        assert self.source is not None
        assert self._view is not None
        try:
            step = await self.source.next(endpoint, self._view)
        except RpcFault as fault:
            self.endpoints.failed(endpoint, fault)
            return True
        except FinalityViolatedError as violation:
            self._contradicted(endpoint, str(violation))
            return True
        self.endpoints.succeeded(endpoint)
        self._agrees(endpoint)
        if step is None:
            self._settled_down()
            # Never by a time that is not believed: a head in the future would forget every lease that waits for its approval.
            if self._pruning is not None and self.book.standing().trusted:
                await self._pruning.look(min(self._view.tip.timestamp, int(self._clock.now())))
            return False
        return await self._take(step)

    async def _take(self, step: Step) -> bool:
        assert self.records is not None
        assert self._view is not None
        telling = Telling(self._clock.now) if self.options.announce and self.caught_up.is_set() else None
        try:
            self._view = await take(step, self._view, self.records, self.book, telling)
        except Unavailable as problem:
            await self._reload(problem)
            return True
        self.steps += 1
        at_head = self._view.tip.number >= self.book.head_heard
        if at_head:
            self._settled_down()
        return not at_head

    def _settled_down(self) -> None:
        if not self.caught_up.is_set():
            assert self._view is not None
            log.info("chain.caught-up", block=self._view.tip.number, leases=len(self.book))
            self.caught_up.set()
            self.book.trouble = None
            self._prove_what_may_be_used()

    def _prove_what_may_be_used(self) -> None:
        # Only now, for most of what a long reading brings has ended when the head is reached.
        assert self.proving is not None
        self.book.changed = self._look_at
        self.proving.changed(self.book.usable_unproven(self._clock.now()))

    def _look_at(self, leases: frozenset[LeaseId]) -> None:
        assert self.proving is not None
        assert self.spender_keys is not None
        self.proving.changed(leases)
        self.spender_keys.changed(leases)

    async def _reload(self, problem: Unavailable) -> None:
        """The database failed in a transaction: it may have become durable or not, so read back what is."""
        log.error("chain.database", because=problem.detail)
        while True:
            self.book.trouble = problem.detail
            await asyncio.sleep(1.0)
            try:
                assert self.records is not None
                view = await self.records.resume()
                if view is None:
                    raise Broken("The database lost what was read of the chain. Restart the node to read it again.")
                await self._fill(view)
            except Unavailable as again:
                problem = again
            else:
                return

    def _contradicted(self, endpoint: Endpoint, what: str) -> None:
        if endpoint.name not in self.book.contradictions:
            log.critical("chain.finality-violated", endpoint=endpoint.name, what=what)
        self.book.contradictions[endpoint.name] = what
        endpoint.rest(min(5.0, self.options.poll_interval * 5))

    def _agrees(self, endpoint: Endpoint) -> None:
        if self.book.contradictions.pop(endpoint.name, None) is not None:
            log.warning("chain.finality-agrees-again", endpoint=endpoint.name)

    async def _pause(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            return False
        return True

    # -- the operator

    async def rebuild(self) -> None:
        """Forget what was read and read again from the deployment; proofs and acknowledgements stay. Call before `run`."""
        if self.source is None:
            await self.start()
        assert self.source is not None
        assert self.records is not None
        assert self.interface is not None
        base = await self.source.start_block(await self.endpoints.pick(), self.records.deploy_block or 0)
        await self.records.forget(self.options.earner, self.interface, base)
        self.book.contradictions.clear()
        await self._fill(View(base))

    def metrics(self) -> Metrics:
        """What a scrape shows."""
        return snapshot(self.book, self.endpoints, self.source, self.proving, self._clock.now())


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """Thousands of logs or rows at a time leave no cycles behind, and the garbage collector would walk them a hundred times."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
