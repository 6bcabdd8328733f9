"""A rehearsal: the same box, limits and packages on a product's mock rows; uncharged, unsigned, with every message shown."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Final

from pandacea.domain.access import may_read
from pandacea.domain.charge import Charge
from pandacea.domain.ids import LeaseKey
from pandacea.domain.job import NO_LEASE, Job
from pandacea.domain.product import LiveOutput, Product, Rehearsal, Release
from pandacea.errors import Unavailable
from pandacea.flows.books import View
from pandacea.flows.submit import Accepted, Caller, Forbidden, Order, SubmitPorts, accept, allow, earlier, job_of, repeated

OPEN_QUEUE: Final = 4
"""Rehearsals of people without a lease that may wait or run, all together: addresses cost nothing."""


async def rehearse(order: Order, caller: Caller, ports: SubmitPorts) -> Accepted:
    """Accept a rehearsal. `order.lease_id` is `NO_LEASE` for an open one.

    Raises:
        Forbidden: the product allows none, an asset has no mock rows, or why the lease does not allow it.
        Unavailable: the node cannot know now, or has no room.
    """
    product = _open_product(order, ports) if order.lease_id == NO_LEASE else _leased_product(order, caller, ports)
    for asset_id, _ in order.inputs:
        if product.assets[asset_id].mock is None:
            raise Forbidden("rehearsal-off", f"The asset {asset_id} has no mock rows to rehearse on.")
    await ports.checker.check(order.code)
    token = secrets.token_urlsafe(32) if order.wants_token else None
    job = _rehearsal(order, caller, product, token, ports)
    async with ports.books.write() as work:
        known = await earlier(work, order, caller, ports)
        if known is None:
            await _room_for_strangers(work, order, ports)
            await accept(work, job, caller, ports)
    return Accepted(job, token) if known is None else await repeated(known, order, ports)


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


def _open_product(order: Order, ports: SubmitPorts) -> Product:
    """The product that has every asset of the request and lets anybody rehearse."""
    asked = {asset_id for asset_id, _ in order.inputs}
    for product in ports.catalogue.all():
        if product.rules.rehearsal is Rehearsal.OPEN and asked <= set(product.assets):
            return product
    raise Forbidden("rehearsal-off", "No product with these assets lets people without a lease rehearse; name your lease_id.")


async def _room_for_strangers(view: View, order: Order, ports: SubmitPorts) -> None:
    if order.lease_id == NO_LEASE and await view.jobs.live(LeaseKey(ports.chain_id, ports.contract, NO_LEASE)) >= OPEN_QUEUE:
        raise Unavailable("Other open rehearsals are under way; try again in a moment.", retry_after=10)
