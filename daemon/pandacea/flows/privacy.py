"""The PrivacyService: one question about a lease, one way to run code, whatever box stands behind it."""

from __future__ import annotations

from collections.abc import Callable

from pandacea.domain.access import AccessDecision, ProductFacts, may_run
from pandacea.domain.ids import Address
from pandacea.domain.outcome import Outcome
from pandacea.domain.product import Product
from pandacea.flows.ports import AccessRequest, Catalogue, Clock, LeaseCache, Sandbox, SandboxEvent, SandboxJob


class LeasedPrivacy:
    """`flows.ports.PrivacyService` over the lease book, the catalogue and a sandbox."""

    def __init__(self, leases: LeaseCache, catalogue: Catalogue, sandbox: Sandbox, earner: Address, clock: Clock) -> None:
        """`earner`: only leases made with this address are served."""
        self._leases = leases
        self._catalogue = catalogue
        self._sandbox = sandbox
        self._earner = earner
        self._clock = clock

    def verify_lease(self, request: AccessRequest) -> AccessDecision:
        """See `PrivacyService.verify_lease`."""
        lease = self._leases.find_lease(request.lease_id)
        known = lease is not None and lease.data_product_id is not None
        product = self._catalogue.find_by_hash(lease.data_product_id) if lease and known and lease.data_product_id else None
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
        """See `Sandbox.run`."""
        return await self._sandbox.run_job(job, on_event)


def product_facts(product: Product) -> ProductFacts:
    """What access needs of a product."""
    return ProductFacts(product.product_hash, frozenset(product.assets), product.version)
