"""Keeps in memory how settlement stands, for `/readyz`, the metrics and the log."""

from __future__ import annotations

import structlog

from pandacea.app.startup import Adapters
from pandacea.chain.sending.obstacles import find_obstacles
from pandacea.chain.sending.sender import ChainSender
from pandacea.domain.ids import Address, LeaseId
from pandacea.errors import Unavailable
from pandacea.flows.messages import request_event
from pandacea.flows.settlement.commit_results import Posting
from pandacea.flows.settlement.report import SettlementReport, report_settlement
from pandacea.flows.settlement.requested_leases import list_requested

log = structlog.get_logger(__name__)


class SettlementWatch:
    """How settlement stood at the last look."""

    def __init__(self, adapters: Adapters, sender: ChainSender, earner: Address, posting: Posting) -> None:
        """Nothing is asked before `look_at_backlog` and `look_for_obstacles`."""
        self._adapters, self._sender, self._earner, self._posting = adapters, sender, earner, posting
        self.report = SettlementReport()
        self.obstacles: list[str] = []
        self._told: str | None = None
        self._requested: set[LeaseId] = set()

    @property
    def trouble(self) -> str | None:
        """What keeps delivered results from being paid; None: nothing."""
        backlog = self.report.describe()
        parts = ([backlog] if backlog else []) + self.obstacles
        return " ".join(parts) or None

    async def look_at_backlog(self) -> None:
        """Count what waits, and log it when it becomes trouble.

        Raises:
            Unavailable: the database does not answer.
        """
        self.report = await report_settlement(self._adapters.database, self._adapters.clock)
        told = self.report.describe()
        if (told is None) != (self._told is None):
            log.warning("settlement.behind" if told else "settlement.caught_up", reason=told, waiting=self.report.waiting)
        self._told = told

    async def look_for_requests(self) -> None:
        """Log each lease that waits for the Earner, once, and tell those who listen.

        After a restart it is told once more, under the same id, unless the first telling is still in the outbox.

        Raises:
            Unavailable: the chain was not read yet, or the database does not answer.
        """
        follower = self._adapters.follower
        view = follower.lease_cache.chain_view
        if follower.chain_store is None or view is None:
            raise Unavailable("The node has not read the chain yet.")
        waiting = await list_requested(follower.chain_store, view, self._adapters.clock.now())
        for one in waiting:
            if one.lease_id not in self._requested:
                product = None
                if one.data_product_id is not None:
                    product = await self._adapters.products.find_offered_id(one.data_product_id)
                event = request_event(one.lease_id, one.spender, product, one.price_wei, one.decide_until)
                async with self._adapters.database.unit_of_work() as work:
                    await work.outbox.put_event(event, self._adapters.clock.now())
                    await work.commit()
                log.info(
                    "lease.requested",
                    lease_id=one.lease_id,
                    spender=one.spender,
                    product_id=product,
                    price_wei=str(one.price_wei),
                    decide_until=one.decide_until,
                )
        self._requested = {one.lease_id for one in waiting}

    async def look_for_obstacles(self) -> None:
        """Ask the chain whether the node can settle at all, and log what is new.

        Raises:
            Unavailable: no endpoint answers.
        """
        follower = self._adapters.follower
        if follower.contract_version is None:
            raise Unavailable("No endpoint has shown the contract yet.")
        endpoint = await follower.endpoints.pick_endpoint()
        found = await find_obstacles(
            endpoint, self._adapters.contract, follower.contract_version, self._earner, self._sender.address, self._posting
        )
        for obstacle in found:
            if obstacle not in self.obstacles:
                log.warning("settlement.obstacle", reason=obstacle)
        self.obstacles = found
