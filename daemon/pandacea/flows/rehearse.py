"""A rehearsal: the same box, limits and packages on a product's mock rows; uncharged, unsigned, with every message shown."""

from __future__ import annotations

import secrets
from dataclasses import replace

from pandacea.domain.access import may_read
from pandacea.domain.charge import Charge
from pandacea.domain.ids import ComputationId
from pandacea.domain.job import Job, Mode
from pandacea.domain.product import LiveOutput, Product, Rehearsal, Release
from pandacea.flows.books import Work
from pandacea.flows.crowd import Crowd
from pandacea.flows.submit import Accepted, Caller, Forbidden, Order, SubmitPorts, accept, allow, earlier, job_of, repeated


async def rehearse(order: Order, caller: Caller, ports: SubmitPorts) -> Accepted:
    """Accept a rehearsal of a Spender.

    Raises:
        Forbidden: the product allows none, an asset has no mock rows, or why the lease does not allow it.
        Unavailable: the node cannot know now, or has no room.
    """
    product = _leased_product(order, caller, ports)
    for asset_id, _ in order.inputs:
        if product.assets[asset_id].mock is None:
            raise Forbidden("rehearsal-off", f"The asset {asset_id} has no mock rows to rehearse on.")
    await ports.checker.check(order.code)
    token = secrets.token_urlsafe(32) if order.wants_token else None
    job = _rehearsal(order, caller, product, token, ports)
    gone: list[ComputationId] = []
    async with ports.books.write() as work:
        known = await earlier(work, order, caller, ports)
        if known is None:
            gone = await _make_room(work, ports)
            await accept(work, job, caller, ports)
    for computation_id in gone:
        await ports.shelf.remove(computation_id)
    return Accepted(job, token) if known is None else await repeated(known, order, ports)


async def _make_room(work: Work, ports: SubmitPorts) -> list[ComputationId]:
    """Forget rehearsals until the largest of another fits into the pot that they share: nobody is promised that one stays."""
    largest = ports.limits.of_rehearsals().largest_result
    crowd = Crowd(await work.jobs.stored(Mode.MOCK), await work.jobs.oldest_results(Mode.MOCK, ports.clock.now()), largest)
    gone = [*crowd.own(ports.shelf.rehearsals_per_spender), *crowd.everybodys(ports.shelf.rehearsals)]
    await work.jobs.delete(gone)
    return gone


def _rehearsal(order: Order, caller: Caller, product: Product, token: str | None, ports: SubmitPorts) -> Job:
    job = job_of(order, caller, product, "rehearsal: mock rows", token, ports)
    # Mock rows tell nothing: nothing is held, hidden or charged.
    return replace(
        job,
        charge=Charge.FREE,
        release=Release.AUTO.value,
        live_output=LiveOutput.FULL.value,
        show_messages=True,
        max_computations=0,
    )


def _leased_product(order: Order, caller: Caller, ports: SubmitPorts) -> Product:
    """The product of the caller's lease. Used up or expired does not matter: nothing is used."""
    lease = ports.book.lease(order.lease_id)
    allow(may_read(lease, ports.book.standing(), caller=caller.address))
    product = ports.catalogue.by_hash(lease.data_product_id) if lease and lease.data_product_id else None
    if product is None:
        raise Forbidden("product-unknown", "The product of this lease is not offered by this node.")
    if product.rules.rehearsal is Rehearsal.OFF:
        raise Forbidden("rehearsal-off", f"The product {product.product_id} allows no rehearsals.")
    outside = sorted({asset_id for asset_id, _ in order.inputs} - set(product.assets))
    if outside:
        raise Forbidden(
            "asset-outside-product", f"Not in this lease's product: {', '.join(outside)}. Ask for assets of the product."
        )
    return product
