"""The follower: puts endpoints, lease cache and rows together, and runs the one loop that start and steady state share."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Final

import structlog

from pandacea.chain.approvals.proof import ApprovalProver
from pandacea.chain.approvals.queue import ProofQueue
from pandacea.chain.contract_versions import ContractVersion, V0EventCompleter, detect_contract_version, find_deploy_block
from pandacea.chain.cross_check import CrossCheck
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.finality import FinalityViolatedError
from pandacea.chain.follow_options import FollowOptions
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.logs import LogReader
from pandacea.chain.metrics import ChainMetrics, collect_metrics
from pandacea.chain.new_heads import NewHeadsSubscription
from pandacea.chain.profiles import describe_missing_tags
from pandacea.chain.pruning import LeasePruner
from pandacea.chain.rereading.lease_rereader import LeaseDifference
from pandacea.chain.rereading.parts import Rereading
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import RpcFault
from pandacea.chain.source import ChainSource, find_tags
from pandacea.chain.spenders.accounts import SpenderAccounts
from pandacea.chain.v0_disputes import V0DisputePoller
from pandacea.domain.chain_view import ChainUpdate, ChainView
from pandacea.domain.ids import LeaseId
from pandacea.errors import Broken, Unavailable
from pandacea.flows.following.chain_store import ChainStore
from pandacea.flows.following.follow import apply_update, refresh_leases
from pandacea.flows.ports import Clock
from pandacea.tasks import TaskBody, retry_until_available, run_until_one_ends

log = structlog.get_logger(__name__)

WATCHDOG_POLL_FACTOR: Final = 4
"""Polling is this many times slower while a WebSocket notifies of new blocks."""

RELOAD_SECONDS: Final = 1.0
"""Between two attempts to read back a database that failed."""


class Follower:
    """Follows one LeaseAgreement for one Earner."""

    def __init__(
        self, endpoints: EndpointPool, open_chain_store: Callable[[int], ChainStore], clock: Clock, options: FollowOptions
    ) -> None:
        """`open_chain_store`: opens the rows of the contract on a chain."""
        self.endpoints = endpoints
        self.options = options
        self.lease_cache = InMemoryLeaseCache(
            clock, options.confidence, max_head_age=options.max_head_age, max_silence=options.max_silence
        )
        self._open_chain_store = open_chain_store
        self._clock = clock
        self.wake = asyncio.Event()
        """Set when there may be a new block."""
        self.caught_up = asyncio.Event()
        """Set once the newest block of an endpoint was processed."""
        self.endpoints_tried = asyncio.Event()
        """Set after the first attempt to reach the endpoints, whether one answered or not."""
        self.observe_lag: Callable[[float], None] = lambda _seconds: None
        """Called with the age in seconds of each processed head."""
        self.chain_store: ChainStore | None = None
        self.source: ChainSource | None = None
        self.proof_queue: ProofQueue | None = None
        self.contract_version: ContractVersion | None = None
        self._view: ChainView | None = None
        self._pruner: LeasePruner | None = None
        self._v0_disputes: V0DisputePoller | None = None
        self.cross_check: CrossCheck | None = None
        self.rereading: Rereading | None = None
        self.spender_accounts: SpenderAccounts | None = None
        self.new_heads = None if options.ws_url is None else NewHeadsSubscription(options.ws_url, self.wake.set)

    # -- start

    async def load_from_database(self) -> bool:
        """Fill the lease cache from the database, before any endpoint is asked; False: nothing was ever followed here.

        Answers are complete from here on, but the node is not ready before an endpoint confirms the head.
        """
        self.chain_store = self._open_chain_store(self.options.chain_id)
        view = await self.chain_store.find_view()
        if view is None:
            return False
        await self._fill(view)
        return True

    async def start(self) -> None:
        """Verify the endpoints, detect the contract's version, resume from the database.

        Raises:
            Broken: an endpoint is of another chain or contract, or the address is not a LeaseAgreement; the message says what to do.
            Unavailable: no endpoint answers, or the database does not.
        """
        await self.endpoints.verify_all()
        endpoint = await self.endpoints.pick_endpoint()
        options = self.options
        chain_id = options.chain_id
        self.chain_store = self._open_chain_store(chain_id)
        try:
            self.contract_version = await detect_contract_version(endpoint, options.contract, options.earner)
            view = await self.chain_store.find_view()
            deploy = self.chain_store.deploy_block if view is not None else options.deploy_block
            if deploy is None:
                deploy = await find_deploy_block(endpoint, options.contract)
            self.source = self._make_source(self.chain_store, self.contract_version)
            start = await self.source.get_start_block(endpoint, deploy)
            await self._check_confidence(endpoint)
        except RpcFault as fault:
            self.endpoints.record_failure(endpoint, fault)
            raise
        view = await self.chain_store.open_deployment(options.earner, self.contract_version, deploy, start)
        self.proof_queue = ProofQueue(
            ApprovalProver(options.contract, chain_id, self.contract_version, options.earner, options.approvers, deploy),
            self.endpoints,
            self.chain_store,
            self.lease_cache,
            self._clock.now,
        )
        self.spender_accounts = SpenderAccounts(
            self.endpoints, self.chain_store, self.lease_cache, options.contract, self._clock.now, options.contract_wallets
        )
        if self.contract_version is ContractVersion.V1:
            self._pruner = LeasePruner(self.chain_store)
        else:
            self._v0_disputes = V0DisputePoller(self.endpoints, self.lease_cache, options.contract)
        self.cross_check = CrossCheck(self.endpoints, self.lease_cache, options.contract, deploy, self.chain_store)
        self.rereading = Rereading(
            self.endpoints,
            self.source,
            self.chain_store,
            self.lease_cache,
            self.contract_version,
            self._pick_second,
            deploy,
            self._clock,
            options.reread,
        )
        self.lease_cache.request_proof = self.proof_queue.enqueue
        if view != self._view:
            await self._fill(view)
        # Imports and loaded leases live as long as the process: the garbage collector need not walk them for every range.
        gc.freeze()
        log.info(
            "chain.following",
            chain=chain_id,
            contract=options.contract,
            contract_version=self.contract_version,
            block=view.tip.number,
        )

    async def _check_confidence(self, endpoint: Endpoint) -> None:
        """Note, and say, when the chain has no block that the configured confidence could wait for."""
        safe, finalized = await find_tags(endpoint)
        reason = describe_missing_tags(self.options.confidence, self.options.chain_id, has_safe=safe, has_finalized=finalized)
        self.lease_cache.no_confidence_reason = reason
        if reason is not None:
            log.error("chain.no_approval_will_count", endpoint=endpoint.name, reason=reason)

    def _make_source(self, chain_store: ChainStore, contract_version: ContractVersion) -> ChainSource:
        options = self.options
        completer = None
        if contract_version is ContractVersion.V0:
            completer = V0EventCompleter(
                options.contract, options.earner, options.approvers | {options.earner}, chain_store.find_known
            )
        return ChainSource(
            options.contract,
            options.earner,
            LogReader(options.contract),
            completer,
            self._pick_second,
            settle_every=options.settle_every,
            on_head=self.lease_cache.record_head,
        )

    def _pick_second(self, endpoint: Endpoint) -> Endpoint:
        others = [*self.endpoints.list_independent(endpoint), *self.endpoints.list_others(endpoint)]
        return next((other for other in others if other.verified), endpoint)

    async def _fill(self, view: ChainView) -> None:
        assert self.chain_store is not None
        self.lease_cache.not_ready_reason = "it is reading its database."
        self.lease_cache.clear()
        with gc_paused():
            async for page in self.chain_store.load_approved():
                self.lease_cache.load_rows(page)
                await asyncio.sleep(0)
        await refresh_leases(await self.chain_store.list_touched(), view, self.chain_store, self.lease_cache)
        self._view = view
        # Until the head was reached once, what happened while the node was down is not known.
        self.lease_cache.not_ready_reason = (
            None if self.caught_up.is_set() else "it has not caught up with the chain since it started."
        )
        if self.caught_up.is_set():
            self._queue_proofs()

    # -- the loop

    async def run(self) -> None:
        """Follow until cancelled. Faults of endpoints and database are waited out.

        Raises:
            Broken: as `start`; the operator must act.
        """
        await retry_until_available(
            self._load_and_start,
            pause=lambda: max(1.0, self.endpoints.seconds_until_ready()),
            log_event="chain.not_started",
            on_failure=self._note_failed_start,
        )
        self.endpoints_tried.set()
        assert self.proof_queue is not None
        assert self.cross_check is not None
        assert self.rereading is not None
        assert self.spender_accounts is not None
        parts: dict[str, TaskBody] = {
            "chain-follow": self._follow(),
            "chain-proof-queue": self.proof_queue.run(self.caught_up),
            "chain-spender-accounts": self.spender_accounts.run(self.caught_up),
            "chain-cross-check": self.cross_check.run(self.options.cross_check_interval),
            **self.rereading.make_parts(self.caught_up),
        }
        if self._v0_disputes is not None:
            parts["chain-v0-disputes"] = self._v0_disputes.run(self.options.cross_check_interval, self.caught_up)
        if self.new_heads is not None:
            parts["chain-new-heads"] = self.new_heads.run()
        await run_until_one_ends(parts)

    async def _load_and_start(self) -> None:
        if self._view is None:
            await self.load_from_database()
        await self.start()

    def _note_failed_start(self, error: Unavailable) -> None:
        self._note_unavailable(error)
        self.endpoints_tried.set()

    async def _follow(self) -> None:
        woken = True
        while True:
            before = self._view
            with nullcontext() if self.caught_up.is_set() else gc_paused():
                again = await self.follow_once()
            if again:
                continue
            if not woken and self.new_heads is not None and self._view is not before:
                self.new_heads.report_missed_block()
            # While the socket notifies, polling is only its watchdog.
            slow = self.new_heads is not None and self.new_heads.is_live
            woken = await self._pause(self.options.poll_interval * (WATCHDOG_POLL_FACTOR if slow else 1))

    async def follow_once(self) -> bool:
        """Apply one update if there is one; True: there may be another."""
        self.wake.clear()
        try:
            endpoint = await self.endpoints.pick_endpoint()
        except Unavailable as error:  # an RpcFault too
            log.debug("chain.no_endpoint", reason=error.detail)
            await asyncio.sleep(min(max(0.05, self.endpoints.seconds_until_ready()), 5.0))
            return True
        assert self.source is not None
        assert self._view is not None
        try:
            update = await self.source.plan_update(endpoint, self._view)
        except RpcFault as fault:
            self.endpoints.record_failure(endpoint, fault)
            return True
        except FinalityViolatedError as violation:
            self._note_contradiction(endpoint, str(violation))
            return True
        self.endpoints.record_success(endpoint)
        self._clear_contradiction(endpoint)
        if update is None:
            self._note_caught_up()
            # Only when ready: a head in the future would delete every lease that waits for its approval.
            if self._pruner is not None and self.lease_cache.chain_status().is_ready:
                await self._pruner.prune_if_due(min(self._view.tip.timestamp, int(self._clock.now())))
            return False
        return await self._apply(update)

    async def _apply(self, update: ChainUpdate) -> bool:
        assert self.chain_store is not None
        assert self._view is not None
        assert self.rereading is not None
        messages_at = self._clock.now() if self.options.announce and self.caught_up.is_set() else None
        try:
            self._view = await apply_update(
                update,
                self._view,
                self.chain_store,
                self.lease_cache,
                messages_at,
                self.rereading.report_doubts if self.caught_up.is_set() else None,
                self._clock.now() + self.options.reread.later_seconds,
            )
        except Unavailable as error:
            await self._reload(error)
            return True
        at_head = self._view.tip.number >= self.lease_cache.known_head
        if at_head:
            self._note_caught_up()
            self.observe_lag(self._clock.now() - self._view.tip.timestamp)
        return not at_head

    def _note_caught_up(self) -> None:
        if not self.caught_up.is_set():
            assert self._view is not None
            log.info("chain.caught_up", block=self._view.tip.number, leases=len(self.lease_cache))
            self.caught_up.set()
            self.lease_cache.not_ready_reason = None
            self._queue_proofs()

    def _queue_proofs(self) -> None:
        # Only now: most leases of a long backfill have ended when the head is reached.
        assert self.proof_queue is not None
        self.lease_cache.on_leases_changed = self._enqueue_changed
        self.proof_queue.enqueue_changed(self.lease_cache.list_worth_proving(self._clock.now()))

    def _enqueue_changed(self, leases: frozenset[LeaseId]) -> None:
        assert self.proof_queue is not None
        assert self.spender_accounts is not None
        self.proof_queue.enqueue_changed(leases)
        self.spender_accounts.enqueue_changed(leases)

    async def _reload(self, error: Unavailable) -> None:
        """Read back what is durable: a transaction that failed may have been committed or not."""
        log.error("chain.database_failed", reason=error.detail)
        self._note_unavailable(error)
        await asyncio.sleep(RELOAD_SECONDS)
        await retry_until_available(self._read_back, pause=lambda: RELOAD_SECONDS, on_failure=self._note_unavailable)

    async def _read_back(self) -> None:
        assert self.chain_store is not None
        view = await self.chain_store.find_view()
        if view is None:
            raise Broken("The database lost what was read of the chain. Restart the node to read it again.")
        await self._fill(view)

    def _note_unavailable(self, error: Unavailable) -> None:
        self.lease_cache.not_ready_reason = error.detail

    def _note_contradiction(self, endpoint: Endpoint, reason: str) -> None:
        if endpoint.name not in self.lease_cache.contradictions:
            log.critical("chain.finality_violated", endpoint=endpoint.name, reason=reason)
        self.lease_cache.contradictions[endpoint.name] = reason
        endpoint.back_off(min(5.0, self.options.poll_interval * 5))

    def _clear_contradiction(self, endpoint: Endpoint) -> None:
        if self.lease_cache.contradictions.pop(endpoint.name, None) is not None:
            log.warning("chain.finality_restored", endpoint=endpoint.name)

    async def _pause(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            return False
        return True

    # -- the operator

    async def reread_leases(self, lease_id: LeaseId | None) -> list[LeaseDifference]:
        """Read one lease, or all of them, again from the followed endpoint and fold in what was missing; return what changed.

        Raises:
            Unavailable: no endpoint answers now, or nothing was read yet.
        """
        if self.rereading is None or not self.caught_up.is_set():
            raise Unavailable("The node has not caught up with the chain yet. Try again when GET /readyz answers 200.")
        return await self.rereading.rereader.reread_leases(lease_id)

    async def check_before_run(self, lease_id: LeaseId) -> None:
        """Ask the contract for a lease once before a run starts; what it denies is denied in the cache when this returns."""
        if self.rereading is not None and self.rereading.states is not None:
            await self.rereading.states.check_before_run(lease_id)

    def collect_metrics(self) -> ChainMetrics:
        """Collect the figures that a scrape shows."""
        return collect_metrics(self.lease_cache, self.endpoints, self.source, self.proof_queue, self._clock.now())


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector: thousands of logs or rows leave no cycles, and it would walk them a hundred times."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
