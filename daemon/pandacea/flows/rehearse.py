"""Accept a rehearsal: the same sandbox, limits and packages on a product's mock rows; uncharged, unsigned, with every message shown."""

from __future__ import annotations

from dataclasses import replace

from pandacea.domain.access import may_read, require
from pandacea.domain.charge import Charge
from pandacea.domain.ids import ComputationId
from pandacea.domain.job import Job, Mode
from pandacea.domain.product import LiveOutput, Product, Rehearsal, Release
from pandacea.errors import ProblemError
from pandacea.flows.accept_job import (
    AcceptedJob,
    Caller,
    ComputationRequest,
    SubmitPorts,
    answer_repeated,
    build_job,
    find_earlier,
    insert_job,
    new_token,
)
from pandacea.flows.result_quota import Eviction
from pandacea.flows.unit_of_work import UnitOfWork


async def rehearse(request: ComputationRequest, caller: Caller, ports: SubmitPorts) -> AcceptedJob:
    """Accept a rehearsal of a Spender.

    Raises:
        ProblemError: the product allows none, an asset has no mock rows, or why the lease does not allow it.
        Unavailable: the node cannot know now, or has no room.
    """
    product = _require_product(request, caller, ports)
    for asset_id, _ in request.inputs:
        if product.assets[asset_id].mock is None:
            raise ProblemError("rehearsal-off", f"The asset {asset_id} has no mock rows to rehearse on.")
    await ports.checker.check_code(request.code)
    token = new_token() if request.wants_token else None
    job = _build_rehearsal(request, caller, product, token, ports)
    evicted: list[ComputationId] = []
    async with ports.database.unit_of_work() as work:
        earlier = await find_earlier(work, request, caller, ports)
        if earlier is None:
            evicted = await _evict(work, ports)
            await insert_job(work, job, caller, ports)
    for computation_id in evicted:
        await ports.results.remove_folder(computation_id)
    return AcceptedJob(job, token) if earlier is None else await answer_repeated(earlier, request, ports)


async def _evict(work: UnitOfWork, ports: SubmitPorts) -> list[ComputationId]:
    """Delete rehearsals until the largest of another fits into the quota that all share: nobody is promised that one stays."""
    largest = ports.limits.of_rehearsals().largest_result
    eviction = Eviction(
        await work.jobs.stored_bytes(Mode.MOCK), await work.jobs.list_oldest_results(Mode.MOCK, ports.clock.now()), largest
    )
    evicted = [
        *eviction.evict_own(ports.results.max_rehearsal_bytes_per_spender),
        *eviction.evict_largest(ports.results.max_rehearsal_bytes),
    ]
    await work.jobs.delete_jobs(evicted)
    return evicted


def _build_rehearsal(request: ComputationRequest, caller: Caller, product: Product, token: str | None, ports: SubmitPorts) -> Job:
    job = build_job(request, caller, product, "rehearsal: mock rows", token, ports)
    # Mock rows tell nothing: nothing is held, hidden or charged.
    return replace(
        job,
        charge=Charge.FREE,
        release=Release.AUTO.value,
        live_output=LiveOutput.FULL.value,
        show_messages=True,
        max_computations=0,
    )


def _require_product(request: ComputationRequest, caller: Caller, ports: SubmitPorts) -> Product:
    """Return the product of the caller's lease. A lease that is used up or expired serves as well: nothing is used."""
    lease = ports.leases.find_lease(request.lease_id)
    require(may_read(lease, ports.leases.chain_status(), caller=caller.address))
    product = ports.find_product(request.lease_id)
    if product is None:
        raise ProblemError("product-unknown", "The product of this lease is not offered by this node.")
    if product.rules.rehearsal is Rehearsal.OFF:
        raise ProblemError("rehearsal-off", f"The product {product.product_id} allows no rehearsals.")
    outside = sorted({asset_id for asset_id, _ in request.inputs} - set(product.assets))
    if outside:
        raise ProblemError(
            "asset-outside-product", f"Not in this lease's product: {', '.join(outside)}. Ask for assets of the product."
        )
    return product
