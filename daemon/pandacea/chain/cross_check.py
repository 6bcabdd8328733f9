"""Cross-checks the followed endpoint against the others: any endpoint may deny, a conflict about a final block stops serving."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NoReturn

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
from pandacea.flows.following.chain_store import ChainStore
from pandacea.tasks import run_every

log = structlog.get_logger(__name__)


RANGES_PER_ROUND: Final = 16
"""Ranges of logs that are asked of one endpoint in one round, for what is settled and for what is not: about two calls a second."""

SAVE_EVERY_BLOCKS: Final = 512
"""Blocks without a denial that a restart may have to read once more."""


@dataclass(slots=True)
class EndpointDenials:
    """The denials that one endpoint shows, read from the deployment on, a few ranges a round."""

    settled_to: int
    """The last block that was read for good; stored, with `settled`, so that neither a fault nor a restart begins again."""
    saved_to: int
    settled: dict[LeaseId, bool] = field(default_factory=dict)
    """Lease -> whether it is denied at `settled_to`; only leases that were ever denied."""
    later: dict[LeaseId, tuple[int, bool]] = field(default_factory=dict)
    """Lease -> the block above `settled_to` that denies it, or resolves for the Earner: near the head it is seen before all is read."""
    next_unsettled: int = 0
    """Where reading above the base goes on when one round was not enough for it."""

    def list_denied(self) -> list[LeaseId]:
        """List the leases that the endpoint shows as denied."""
        newest = {**self.settled, **{lease_id: denied for lease_id, (_, denied) in self.later.items()}}
        return [lease_id for lease_id, denied in newest.items() if denied]


class CrossCheck:
    """Reads the denials of every endpoint that is not followed."""

    def __init__(
        self,
        endpoints: EndpointPool,
        lease_cache: InMemoryLeaseCache,
        contract: Address,
        deploy_block: int,
        chain_store: ChainStore,
    ) -> None:
        """`deploy_block`: where reading starts; `chain_store`: keeps how far each endpoint was read."""
        self._endpoints = endpoints
        self._lease_cache = lease_cache
        self._reader = LogReader(contract, DENIAL_TOPICS)
        self._first = deploy_block
        self._chain_store = chain_store
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
        denials = await self._load(endpoint)
        try:
            await self._read_settled(endpoint, denials, view.base.number)
            await self._read_unsettled(endpoint, denials, view.base.number + 1, newest)
        finally:  # what was read before a fault counts, too
            self._lease_cache.set_contested(endpoint.name, self._contested(denials.list_denied()))

    async def _load(self, endpoint: Endpoint) -> EndpointDenials:
        known = self._denials.get(endpoint.url)
        if known is None:
            settled_to, settled = await self._chain_store.load_cross_check(_key(endpoint)) or (self._first - 1, {})
            known = self._denials[endpoint.url] = EndpointDenials(settled_to, settled_to, dict(settled))
        return known

    async def _read_settled(self, endpoint: Endpoint, denials: EndpointDenials, base: int) -> None:
        """Read on below the base, at most `RANGES_PER_ROUND` ranges; each one that was read is kept."""
        found: dict[LeaseId, tuple[int, bool]] = {}
        try:
            for _ in range(RANGES_PER_ROUND):
                if denials.settled_to >= base:
                    break
                end, seen = await self._read(endpoint, denials.settled_to + 1, base)
                found.update(seen)
                denials.settled.update({lease_id: denied for lease_id, (_, denied) in seen.items()})
                denials.settled_to = end
        finally:
            denials.later = {lease: seen for lease, seen in denials.later.items() if seen[0] > denials.settled_to}
            if found or denials.settled_to - denials.saved_to >= SAVE_EVERY_BLOCKS:
                denials.saved_to = denials.settled_to
                await self._chain_store.save_cross_check(_key(endpoint), denials.settled_to, denials.settled)

    async def _read_unsettled(self, endpoint: Endpoint, denials: EndpointDenials, first: int, newest: int) -> None:
        """Read what may still be reorganised, every round again, or in turns where a round does not suffice."""
        place = denials.next_unsettled if first <= denials.next_unsettled <= newest else first
        for _ in range(RANGES_PER_ROUND):
            if place > newest:
                break
            end, found = await self._read(endpoint, place, newest)
            kept = {lease: seen for lease, seen in denials.later.items() if not place <= seen[0] <= end}
            for lease_id, seen in found.items():
                if lease_id not in kept or kept[lease_id][0] < seen[0]:
                    kept[lease_id] = seen
            denials.later = kept
            place = end + 1
        denials.next_unsettled = place if place <= newest else 0
        denials.later = {lease: seen for lease, seen in denials.later.items() if seen[0] <= newest}

    async def _read(self, endpoint: Endpoint, first: int, last: int) -> tuple[int, dict[LeaseId, tuple[int, bool]]]:
        """Read one range; return its last block, and lease -> (block, whether it is denied) for what happened in it."""
        end, logs = await self._reader.read_range(endpoint, first, last)
        seen: dict[LeaseId, tuple[int, bool]] = {}
        for found in logs:
            match decode_event(found.topics, found.data):
                case LeaseCancelled(lease_id=lease_id) | DisputeRaised(lease_id=lease_id):
                    seen[lease_id] = (found.number, True)
                case DisputeResolved(lease_id=lease_id, is_dispute_valid=valid):
                    seen[lease_id] = (found.number, valid)
        return end, seen

    def _contested(self, denied: Iterable[LeaseId]) -> Iterable[LeaseId]:
        for lease_id in denied:
            if (lease := self._lease_cache.peek(lease_id)) is not None and not _is_denied(lease):
                yield lease_id


def _key(endpoint: Endpoint) -> str:
    """Name an endpoint in the database without its URL, which may hold a key."""
    return hashlib.sha256(endpoint.url.encode()).hexdigest()


def _is_denied(lease: CachedLease) -> bool:
    return lease.status is LeaseStatus.CANCELLED or lease.in_dispute or lease.resolved_for_spender
