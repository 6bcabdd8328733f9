"""Cross-checks the followed endpoint against the others: any endpoint may deny, a conflict about a final block stops serving."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

import structlog

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.events import DENIAL_TOPICS, decode_event
from pandacea.chain.finality import FinalityViolatedError, check_finality
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
    """The denials that one endpoint shows, read from the deployment on."""

    settled_to: int
    """The last block that was read for good; later ones are read again in every round."""
    settled: dict[LeaseId, bool] = field(default_factory=dict)
    """Lease -> whether it is denied at `settled_to`; only leases that were ever denied."""


class CrossCheck:
    """Reads the denials of every endpoint that is not followed."""

    def __init__(self, endpoints: EndpointPool, lease_cache: InMemoryLeaseCache, contract: Address, deploy_block: int) -> None:
        """`deploy_block`: where reading starts."""
        self._endpoints = endpoints
        self._lease_cache = lease_cache
        self._reader = LogReader(contract, DENIAL_TOPICS)
        self._first = deploy_block
        self._denials: dict[str, EndpointDenials] = {}

    async def run(self, interval: float) -> NoReturn:
        """Check the endpoints every `interval` seconds until cancelled."""
        await asyncio.sleep(interval)
        await run_every(interval, self.check_endpoints, name="chain-cross-check", log_event="chain.cross_check_postponed")

    async def check_endpoints(self) -> None:
        """Check every other endpoint once. The followed endpoint contests nothing: the lease cache is what it shows."""
        followed = self._endpoints.current
        self._lease_cache.set_contested(followed.name, ())
        for endpoint in self._endpoints.list_others(followed):
            view = self._lease_cache.chain_view
            if view is None:
                return
            try:
                await self._endpoints.verify_endpoint(endpoint)
                await self._check_endpoint(endpoint, view)
            except RpcFault as fault:
                # Its earlier denials stand: an endpoint does not withdraw a denial by failing.
                self._endpoints.record_failure(endpoint, fault)
            else:
                self._endpoints.record_success(endpoint)

    async def _check_endpoint(self, endpoint: Endpoint, view: ChainView) -> None:
        head = (await endpoint.get_header("latest")).to_block_ref()
        newest = endpoint.head = head.number
        if view.base.number < 0:
            return
        try:
            await check_finality(endpoint, view)
        except FinalityViolatedError as violation:
            if endpoint.name not in self._lease_cache.contradictions:
                log.critical("chain.finality_violated", endpoint=endpoint.name, reason=str(violation))
            self._lease_cache.contradictions[endpoint.name] = str(violation)
            return
        if newest < view.base.number:
            return  # it lags behind the settled base
        self._lease_cache.contradictions.pop(endpoint.name, None)
        denials = self._denials.setdefault(endpoint.url, EndpointDenials(self._first - 1))
        await self._read(endpoint, denials.settled, denials.settled_to + 1, view.base.number)
        denials.settled_to = max(denials.settled_to, view.base.number)
        now = dict(denials.settled)
        await self._read(endpoint, now, view.base.number + 1, newest)
        self._lease_cache.set_contested(endpoint.name, self._contested(now))

    async def _read(self, endpoint: Endpoint, denied: dict[LeaseId, bool], first: int, last: int) -> None:
        async for logs in self._reader.read_ranges(endpoint, first, last):
            for found in logs:
                match decode_event(found.topics, found.data):
                    case LeaseCancelled(lease_id=lease_id) | DisputeRaised(lease_id=lease_id):
                        denied[lease_id] = True
                    case DisputeResolved(lease_id=lease_id, is_dispute_valid=valid):
                        denied[lease_id] = valid

    def _contested(self, denied: dict[LeaseId, bool]) -> Iterable[LeaseId]:
        for lease_id, is_denied in denied.items():
            if is_denied and (lease := self._lease_cache.peek(lease_id)) is not None and not _is_denied(lease):
                yield lease_id


def _is_denied(lease: CachedLease) -> bool:
    return lease.status is LeaseStatus.CANCELLED or lease.in_dispute or lease.resolved_for_spender
