"""The other endpoints as witnesses: any of them may deny, and whoever contradicts what was final stops the serving."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

import structlog

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.events import DENIAL_TOPICS, decode_event
from pandacea.chain.lease_cache import InMemoryLeaseCache
from pandacea.chain.logs import LogReader
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import RpcFault
from pandacea.domain.access import CachedLease
from pandacea.domain.chain_view import ChainView
from pandacea.domain.ids import Address, LeaseId
from pandacea.domain.lease import DisputeRaised, DisputeResolved, LeaseCancelled, LeaseStatus
from pandacea.tasks import run_every

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class EndpointDenials:
    """What one endpoint says of denials, read from the deployment on."""

    settled_to: int
    """Blocks up to here were read once and are not read again."""
    settled: dict[LeaseId, bool] = field(default_factory=dict)
    """Lease -> whether it is denied, as of `settled_to`; only leases that were ever denied."""


class CrossCheck:
    """Asks every endpoint that is not being followed."""

    def __init__(self, endpoints: EndpointPool, book: InMemoryLeaseCache, contract: Address, deploy_block: int) -> None:
        """Read from `deploy_block` on."""
        self._endpoints = endpoints
        self._book = book
        self._reader = LogReader(contract, DENIAL_TOPICS)
        self._first = deploy_block
        self._said: dict[str, EndpointDenials] = {}

    async def run(self, interval: float) -> NoReturn:
        """Check the endpoints every `interval` seconds until cancelled."""
        await asyncio.sleep(interval)
        await run_every(interval, self.check_endpoints, name="chain-cross-check", log_event="chain.cross_check_postponed")

    async def check_endpoints(self) -> None:
        """One round. The endpoint being followed is no witness: its doubts are dropped, for its word is the book's."""
        followed = self._endpoints.current
        self._book.set_contested(followed.name, ())
        for endpoint in self._endpoints.list_others(followed):
            view = self._book.chain_view
            if view is None:
                return
            try:
                await self._endpoints.verify_endpoint(endpoint)
                await self._ask(endpoint, view)
            except RpcFault as fault:
                # What it said before stands: an endpoint does not take a denial back by going silent.
                self._endpoints.record_failure(endpoint, fault)
            else:
                self._endpoints.record_success(endpoint)

    async def _ask(self, endpoint: Endpoint, view: ChainView) -> None:
        head = await endpoint.get_header("latest")
        newest = endpoint.head = int(head.number, 16)
        if view.base.number < 0 or newest < view.base.number:
            return  # behind what is settled here: it has nothing to add
        theirs = await endpoint.get_header(view.base.number)
        if theirs.hash != view.base.hash:
            self._book.contradictions[endpoint.name] = (
                f"{endpoint.name} shows another block {view.base.number} than the one that was final here."
            )
            log.critical("chain.finality-violated", endpoint=endpoint.name, block=view.base.number)
            return
        self._book.contradictions.pop(endpoint.name, None)
        said = self._said.setdefault(endpoint.url, EndpointDenials(self._first - 1))
        await self._read(endpoint, said.settled, said.settled_to + 1, view.base.number)
        said.settled_to = max(said.settled_to, view.base.number)
        now = dict(said.settled)
        await self._read(endpoint, now, view.base.number + 1, newest)
        self._book.set_contested(endpoint.name, self._contested(now))

    async def _read(self, endpoint: Endpoint, denied: dict[LeaseId, bool], first: int, last: int) -> None:
        at = first
        while at <= last:
            end, logs = await self._reader.read_range(endpoint, at, last)
            for found in logs:
                match decode_event(found.topics, found.data):
                    case LeaseCancelled(lease_id=lease_id) | DisputeRaised(lease_id=lease_id):
                        denied[lease_id] = True
                    case DisputeResolved(lease_id=lease_id, is_dispute_valid=valid):
                        denied[lease_id] = valid
            at = end + 1

    def _contested(self, denied: dict[LeaseId, bool]) -> Iterable[LeaseId]:
        for lease_id, is_denied in denied.items():
            if is_denied and (known := self._book.peek(lease_id)) is not None and not _denied_here(known):
                yield lease_id


def _denied_here(lease: CachedLease) -> bool:
    return lease.status is LeaseStatus.CANCELLED or lease.in_dispute or lease.resolved_for_spender
