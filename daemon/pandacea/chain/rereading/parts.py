"""Everything that reads again what was read once: made together, for the parts find work for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from pandacea.chain.backfill_check import BackfillChecker
from pandacea.chain.contract_versions import ContractVersion
from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.rereading.lease_rereader import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, LeaseRereader
from pandacea.chain.rereading.scan import STEP_SECONDS, SlowScan
from pandacea.chain.rereading.state_checker import TURN_SECONDS, LeaseStateChecker
from pandacea.chain.rereading.unexplained_blocks import RECEIPTS_SECONDS, WAIT_SECONDS, UnexplainedBlockChecker
from pandacea.chain.rpc import Endpoint
from pandacea.chain.source import ChainSource
from pandacea.domain.ids import LeaseId
from pandacea.flows.following.backfill_check import LATER_SECONDS
from pandacea.flows.following.chain_store import ChainStore
from pandacea.flows.ports import Clock
from pandacea.tasks import TaskBody


@dataclass(frozen=True, slots=True)
class RereadOptions:
    """How soon things are read again, in seconds."""

    range_interval: float = 1.0
    """Between two readings of settled ranges that are due."""
    later_seconds: float = LATER_SECONDS
    turn_seconds: float = TURN_SECONDS
    """From one `getLease` of a usable lease to the next."""
    wait_seconds: float = WAIT_SECONDS
    """How long a block that lacks announced logs waits for its next reading."""
    receipts_seconds: float = RECEIPTS_SECONDS
    scan_step_seconds: float = STEP_SECONDS
    first_pause: float = FIRST_PAUSE_SECONDS
    longest_pause: float = LONGEST_PAUSE_SECONDS
    """Between two attempts at one lease."""


class Rereading:
    """The parts of a follower that read again."""

    def __init__(
        self,
        endpoints: EndpointPool,
        source: ChainSource,
        chain_store: ChainStore,
        lease_cache: InMemoryLeaseCache,
        contract_version: ContractVersion,
        pick_second: Callable[[Endpoint], Endpoint],
        deploy_block: int,
        clock: Clock,
        options: RereadOptions,
    ) -> None:
        """`pick_second`: returns another endpoint to ask, or the same when there is none."""
        self._options = options
        self.rereader = LeaseRereader(
            endpoints,
            source,
            chain_store,
            lease_cache,
            contract_version,
            source.earner,
            deploy_block,
            pick_second,
            first_pause=options.first_pause,
            longest_pause=options.longest_pause,
        )
        self.backfill_checker = BackfillChecker(
            endpoints, source, chain_store, pick_second, self.rereader, clock, options.later_seconds
        )
        self.unexplained = UnexplainedBlockChecker(
            endpoints,
            source,
            chain_store,
            lease_cache,
            self.rereader,
            pick_second,
            options.wait_seconds,
            options.receipts_seconds,
        )
        self.scan = SlowScan(endpoints, source, chain_store, lease_cache, self.rereader, deploy_block, options.scan_step_seconds)
        self.states: LeaseStateChecker | None = None
        """None on v0, whose disputes are polled more often (`V0DisputePoller`)."""
        if contract_version is ContractVersion.V1:
            self.states = LeaseStateChecker(endpoints, lease_cache, source.contract, self.rereader, options.turn_seconds)
            self.rereader.on_denied = self.states.forget_denial

    def make_parts(self, caught_up: asyncio.Event) -> dict[str, TaskBody]:
        """Make the coroutines to run, by name."""
        parts: dict[str, TaskBody] = {
            "chain-reread": self.rereader.run(caught_up),
            "chain-backfill-check": self.backfill_checker.run(self._options.range_interval, caught_up),
            "chain-unexplained-blocks": self.unexplained.run(caught_up),
            "chain-scan": self.scan.run(caught_up),
        }
        if self.states is not None:
            parts["chain-lease-states"] = self.states.run(caught_up)
        return parts

    def report_doubts(self, contradictory: Collection[LeaseId], unknown: Collection[LeaseId]) -> None:
        """Have leases read again whose events contradict each other, and ask whose leases the unknown ones are."""
        self.rereader.enqueue_leases(contradictory)
        self.rereader.enqueue_strangers(unknown)
