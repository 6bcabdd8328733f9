"""The PrivacyService of the specification: verify a lease, and run code in a sandbox."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pandacea.domain.access import AccessDecision, ProductFacts, may_run
from pandacea.domain.ids import Address, AssetId, LeaseId
from pandacea.domain.outcome import Outcome
from pandacea.domain.product import Product
from pandacea.flows.ports import Catalogue, Clock, LeaseCache, Sandbox, SandboxEvent, SandboxJob


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """Who asks to start a new computation under which lease, and on what."""

    lease_id: LeaseId
    caller: Address
    assets: tuple[AssetId, ...]
    product_version: str | None
    """The version that the request names; None: the current one."""
    used: int
    """Computations charged in the database."""
    reserved: int
    """Computations accepted and not yet charged."""
    time_limit: float
    """Seconds the run may take."""


class PrivacyService:
    """Decides over the lease cache and the catalogue, runs in whatever sandbox it is given."""

    def __init__(self, leases: LeaseCache, catalogue: Catalogue, sandbox: Sandbox, earner: Address, clock: Clock) -> None:
        """Serve only leases made with `earner`."""
        self._leases = leases
        self._catalogue = catalogue
        self._sandbox = sandbox
        self._earner = earner
        self._clock = clock

    def verify_lease(self, request: AccessRequest) -> AccessDecision:
        """Decide whether the caller may start a new computation on these assets now. Answers from memory, without waiting."""
        lease = self._leases.find_lease(request.lease_id)
        product = self._catalogue.find_by_hash(lease.data_product_id) if lease and lease.data_product_id else None
        return may_run(
            lease,
            self._leases.chain_status(),
            caller=request.caller,
            earner=self._earner,
            product=None if product is None else product_facts(product),
            assets=request.assets,
            product_version=request.product_version,
            used=request.used,
            reserved=request.reserved,
            time_limit=request.time_limit,
            clock=self._clock.now(),
        )

    async def execute_computation(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        """Run an accepted computation to its end; see `Sandbox.run_job`."""
        return await self._sandbox.run_job(job, on_event)


def product_facts(product: Product) -> ProductFacts:
    """Take from a product what the access decisions need."""
    return ProductFacts(product.product_hash, frozenset(product.assets), product.version)
