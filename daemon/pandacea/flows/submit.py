"""Accept a computation: verify the lease, check the script, insert the reservation and the row in one transaction."""

from __future__ import annotations

import hashlib
import json

from pandacea.domain.access import AccessDecision, require
from pandacea.domain.charge import LeaseUse, count_use
from pandacea.domain.code_approval import find_approval
from pandacea.domain.product import Policy, Product, Release
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
from pandacea.flows.privacy import AccessRequest
from pandacea.flows.unit_of_work import ReadSession


async def submit_job(request: ComputationRequest, caller: Caller, ports: SubmitPorts) -> AcceptedJob:
    """Accept a computation, or answer a retry with the job that its first try made.

    1. From memory: does the lease allow it? What no count can change is refused before the database is asked for anything.
    2. In a read session: the same with the lease's counts.
    3. The code policy: an approval of the script, or the static check.
    4. In one transaction: the lease again, then row, reservation and message. Two requests for the last computation cannot both pass.

    Raises:
        ProblemError: the lease, the product or the code policy does not allow it; with the code the Spender sees.
        Unavailable: the node cannot know now, or has no room; nothing was written.
    """
    if request.idempotency_key is None:
        require(_verify_lease(request, caller, ports, LeaseUse(0, 0)))
    async with ports.database.read_session() as session:
        earlier = await find_earlier(session, request, caller, ports)
        if earlier is None:
            require(_verify_lease(request, caller, ports, await _count_use(session, request, ports)))
    if earlier is not None:
        return await answer_repeated(earlier, request, ports)
    product = _require_product(request, ports)
    decision = await _decide_policy(request, product, ports)
    # Nobody waits in one request for a result that waits for a person: such a request is answered like an asynchronous one.
    token = new_token() if request.wants_token or product.rules.release is Release.HOLD else None
    job = build_job(request, caller, product, decision, token, ports)
    async with ports.database.unit_of_work() as work:
        earlier = await find_earlier(work, request, caller, ports)
        if earlier is None:
            require(_verify_lease(request, caller, ports, await _count_use(work, request, ports)))
            await insert_job(work, job, caller, ports)
    return AcceptedJob(job, token) if earlier is None else await answer_repeated(earlier, request, ports)


async def _count_use(session: ReadSession, request: ComputationRequest, ports: SubmitPorts) -> LeaseUse:
    counts = await session.jobs.count_by_charge(ports.lease_key(request.lease_id))
    lease = ports.leases.find_lease(request.lease_id)
    return count_use(counts, lease.committed_count if lease else 0)


def _verify_lease(request: ComputationRequest, caller: Caller, ports: SubmitPorts, use: LeaseUse) -> AccessDecision:
    return ports.privacy.verify_lease(
        AccessRequest(
            lease_id=request.lease_id,
            caller=caller.address,
            assets=tuple(asset_id for asset_id, _ in request.inputs),
            product_version=request.product_version,
            used=use.used,
            reserved=use.reserved,
            time_limit=ports.limits.time_seconds,
        )
    )


def _require_product(request: ComputationRequest, ports: SubmitPorts) -> Product:
    product = ports.find_product(request.lease_id)
    if product is None:  # it was there a moment ago: withdrawn between two awaits
        raise ProblemError("product-unknown", "The product of this lease is no longer offered by this node.")
    return product


async def _decide_policy(request: ComputationRequest, product: Product, ports: SubmitPorts) -> str:
    """Return why this script may run on this product, as the manifest states it.

    Raises:
        ProblemError: no approval covers it.
        Refused: what the static check found.
    """
    if product.rules.policy is Policy.ANY_CODE:
        await ports.checker.check_code(request.code)
        return f"{product.rules.policy}: passed the static check"
    digest = hashlib.sha256(request.code.encode()).hexdigest()
    async with ports.database.read_session() as session:
        submissions = await session.code.find_by_script(product.product_id, digest)
    inputs = {name: str(asset_id) for asset_id, name in request.inputs}
    columns = product.columns_of(inputs.values())
    decision = find_approval(submissions, inputs, list(request.uploads), json.loads(request.params), columns)
    if decision.code_id is None:
        raise ProblemError(decision.code, decision.detail)
    return f"{product.rules.policy}: {decision.code_id}"
