"""GET /api/v1/leases/{lease_id}: how this node sees a lease, and why it would refuse; to its Spender only."""

from __future__ import annotations

from aiohttp import web

from pandacea.api.auth import authenticate_spender
from pandacea.api.node import NODE
from pandacea.domain.access import Denied, Unknown
from pandacea.domain.charge import Charge, count_used
from pandacea.domain.ids import Address, LeaseId, LeaseKey
from pandacea.errors import ProblemError
from pandacea.flows.privacy import AccessRequest
from pandacea_sdk.protocol.execute_request import check_lease_id

ROUTE = "/api/v1/leases/{lease_id}"


async def get_lease(request: web.Request) -> web.Response:
    """Status, terms, what is used, and whether a computation would be accepted now."""
    node = request.app[NODE]
    caller = Address((await authenticate_spender(request)).address)
    lease_id = LeaseId(check_lease_id(request.match_info["lease_id"], "/lease_id"))
    found = node.leases.find_lease(lease_id)
    if found is None or found.spender != caller:
        raise ProblemError("lease-unknown", "No lease of yours with this id is known here; a lease counts after its approval.")
    ports = node.submit
    async with node.database.read_session() as view:
        counts = await view.jobs.count_by_charge(LeaseKey(ports.chain_id, ports.contract, lease_id))
    charged = count_used(counts, found.committed_count)
    reserved = counts.get(Charge.RESERVED, 0)
    question = AccessRequest(lease_id, caller, (), None, charged, reserved, ports.limits.time_seconds)
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
            "approval": found.proof_status.value,
            "may_run": not isinstance(answer, Denied | Unknown),
            "reason": answer.detail if isinstance(answer, Denied | Unknown) else None,
        }
    )
