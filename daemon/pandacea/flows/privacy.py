"""The PrivacyService: one question about a lease, one way to run code, whatever box stands behind it."""

from __future__ import annotations

from collections.abc import Callable

from pandacea.domain.access import Answer, ProductFacts, may_run
from pandacea.domain.ids import Address
from pandacea.domain.outcome import Outcome
from pandacea.domain.product import Product
from pandacea.flows.ports import Catalogue, Clock, LeaseBook, RunQuestion, Sandbox, SandboxEvent, SandboxJob


class LeasedPrivacy:
    """`flows.ports.PrivacyService` over the lease book, the catalogue and a sandbox."""

    def __init__(self, book: LeaseBook, catalogue: Catalogue, sandbox: Sandbox, earner: Address, clock: Clock) -> None:
        """`earner`: only leases made with this address are served."""
        self._book = book
        self._catalogue = catalogue
        self._sandbox = sandbox
        self._earner = earner
        self._clock = clock

    def verify_lease(self, question: RunQuestion) -> Answer:
        """See `PrivacyService.verify_lease`."""
        lease = self._book.lease(question.lease_id)
        known = lease is not None and lease.data_product_id is not None
        product = self._catalogue.by_hash(lease.data_product_id) if lease and known and lease.data_product_id else None
        return may_run(
            lease,
            self._book.standing(),
            caller=question.caller,
            earner=self._earner,
            product=None if product is None else facts(product),
            assets=question.assets,
            product_version=question.product_version,
            used=question.used,
            reserved=question.reserved,
            time_limit=question.time_limit,
            clock=self._clock.now(),
        )

    async def execute_computation(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        """See `Sandbox.run`."""
        return await self._sandbox.run(job, on_event)


def facts(product: Product) -> ProductFacts:
    """What access needs of a product."""
    return ProductFacts(product.product_hash, frozenset(product.assets), product.version)
