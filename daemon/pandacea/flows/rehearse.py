"""A rehearsal: the same box, limits and packages on a product's mock rows; uncharged, unsigned, with every message shown."""

from __future__ import annotations

import secrets
from dataclasses import replace

from pandacea.domain.access import may_read
from pandacea.domain.charge import Charge
from pandacea.domain.ids import ComputationId
from pandacea.domain.job import Job, Mode
from pandacea.domain.product import LiveOutput, Product, Rehearsal, Release
from pandacea.flows.eviction import Eviction
from pandacea.flows.submit import (
    AcceptedJob,
    Caller,
    ComputationRequest,
    ProblemError,
    SubmitPorts,
    answer_repeated,
    build_job,
    find_earlier,
    insert_job,
    require,
)
from pandacea.flows.unit_of_work import UnitOfWork


async def rehearse(order: ComputationRequest, caller: Caller, ports: SubmitPorts) -> AcceptedJob:
    """Accept a rehearsal of a Spender.

    Raises:
        Forbidden: the product allows none, an asset has no mock rows, or why the lease does not allow it.
        Unavailable: the node cannot know now, or has no room.
    """
    product = _leased_product(order, caller, ports)
    for asset_id, _ in order.inputs:
        if product.assets[asset_id].mock is None:
            raise ProblemError("rehearsal-off", f"The asset {asset_id} has no mock rows to rehearse on.")
    await ports.checker.check_code(order.code, caller.address)
    token = secrets.token_urlsafe(32) if order.wants_token else None
    job = _rehearsal(order, caller, product, token, ports)
    gone: list[ComputationId] = []
    async with ports.database.unit_of_work() as work:
        known = await find_earlier(work, order, caller, ports)
        if known is None:
            gone = await _evict(work, ports)
            await insert_job(work, job, caller, ports)
    for computation_id in gone:
        await ports.results.remove_folder(computation_id)
    return AcceptedJob(job, token) if known is None else await answer_repeated(known, order, ports)


async def _evict(work: UnitOfWork, ports: SubmitPorts) -> list[ComputationId]:
    """Forget rehearsals until the largest of another fits into the pot that they share: nobody is promised that one stays."""
    largest = ports.limits.of_rehearsals().largest_result
    crowd = Eviction(
        await work.jobs.stored_bytes(Mode.MOCK), await work.jobs.list_oldest_results(Mode.MOCK, ports.clock.now()), largest
    )
    gone = [
        *crowd.evict_own(ports.results.max_rehearsal_bytes_per_spender),
        *crowd.evict_largest(ports.results.max_rehearsal_bytes),
    ]
    await work.jobs.delete_jobs(gone)
    return gone


def _rehearsal(order: ComputationRequest, caller: Caller, product: Product, token: str | None, ports: SubmitPorts) -> Job:
    job = build_job(order, caller, product, "rehearsal: mock rows", token, ports)
    # Mock rows tell nothing: nothing is held, hidden or charged.
    return replace(
        job,
        charge=Charge.FREE,
        release=Release.AUTO.value,
        live_output=LiveOutput.FULL.value,
        show_messages=True,
        max_computations=0,
    )


def _leased_product(order: ComputationRequest, caller: Caller, ports: SubmitPorts) -> Product:
    """The product of the caller's lease. Used up or expired does not matter: nothing is used."""
    lease = ports.leases.find_lease(order.lease_id)
    require(may_read(lease, ports.leases.chain_status(), caller=caller.address))
    product = ports.catalogue.find_by_hash(lease.data_product_id) if lease and lease.data_product_id else None
    if product is None:
        raise ProblemError("product-unknown", "The product of this lease is not offered by this node.")
    if product.rules.rehearsal is Rehearsal.OFF:
        raise ProblemError("rehearsal-off", f"The product {product.product_id} allows no rehearsals.")
    outside = sorted({asset_id for asset_id, _ in order.inputs} - set(product.assets))
    if outside:
        raise ProblemError(
            "asset-outside-product", f"Not in this lease's product: {', '.join(outside)}. Ask for assets of the product."
        )
    return product
