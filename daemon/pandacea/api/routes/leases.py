"""GET /api/v1/leases/{lease_id}: how this node sees a lease, and why it would refuse; to its Spender only."""

from __future__ import annotations

from aiohttp import web

from pandacea.api.auth import signed
from pandacea.api.node import NODE
from pandacea.domain.access import Denied, Unknown
from pandacea.domain.charge import Charge, used
from pandacea.domain.ids import Address, LeaseId, LeaseKey
from pandacea.flows.ports import RunQuestion
from pandacea.flows.submit import Forbidden
from pandacea_sdk.protocol.wire import check_lease_id

ROUTE = "/api/v1/leases/{lease_id}"


async def lease(request: web.Request) -> web.Response:
    """Status, terms, what is used, and whether a computation would be accepted now."""
    node = request.app[NODE]
    caller = Address((await signed(request)).address)
    lease_id = LeaseId(check_lease_id(request.match_info["lease_id"], "/lease_id"))
    found = node.book.lease(lease_id)
    if found is None or found.spender != caller:
        raise Forbidden("lease-unknown", "No lease of yours with this id is known here; a lease counts after its approval.")
    ports = node.submit
    async with node.books.read() as view:
        counts = await view.jobs.counted(LeaseKey(ports.chain_id, ports.contract, lease_id))
    charged = used(counts, found.committed_count)
    reserved = counts.get(Charge.RESERVED, 0)
    question = RunQuestion(lease_id, caller, (), None, charged, reserved, ports.limits.time_seconds)
    answer = ports.privacy.verify_lease(question)
    return web.json_response(
        {
            "lease_id": lease_id,
            "status": found.status.value,
            "earner": found.earner,
            "data_product_id": found.data_product_id,
            "expires_at": found.expires_at,
            "max_computations": found.max_computations,
            "used": charged,
            "reserved": reserved,
            "failed_runs": counts.get(Charge.ALLOWANCE, 0),
            "approved_block": found.approved_block,
            "approval": found.trust.value,
            "may_run": not isinstance(answer, Denied | Unknown),
            "reason": answer.detail if isinstance(answer, Denied | Unknown) else None,
        }
    )
