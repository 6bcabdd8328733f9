"""Route of one lease, for its Spender only: how this node sees it."""

from __future__ import annotations

from aiohttp import web

from pandacea.api.auth import authenticate_spender
from pandacea.api.lease_members import lease_members, refusal_reason, usage_members
from pandacea.api.node import NODE
from pandacea.api.openapi.operation import HASH_SCHEMA, Auth, operation, path_parameter
from pandacea.domain.ids import Address, LeaseId, LeaseKey
from pandacea.errors import ProblemError
from pandacea.flows.privacy import AccessRequest
from pandacea_sdk.protocol import responses
from pandacea_sdk.protocol.execute_request import check_lease_id


@operation(
    "GET",
    "/api/v1/leases/{lease_id}",
    "How this node sees a lease of the caller, and why it would refuse",
    Auth.SIGNED,
    {200: responses.LeaseAnswer},
    ("lease-unknown", "bad-lease-id"),
    parameters=(path_parameter("lease_id", HASH_SCHEMA),),
)
async def get_lease(request: web.Request) -> web.Response:
    """Answer with status, terms, usage, and whether a computation would be accepted now."""
    node = request.app[NODE]
    caller = Address((await authenticate_spender(request)).address)
    lease_id = LeaseId(check_lease_id(request.match_info["lease_id"], "/lease_id"))
    found = node.leases.find_lease(lease_id)
    if found is None or found.spender != caller:
        raise ProblemError("lease-unknown", "No lease of yours with this id is known here; a lease counts after its approval.")
    async with node.database.read_session() as session:
        counts = await session.jobs.count_by_charge(LeaseKey(node.chain_id, node.contract, lease_id))
    usage = usage_members(found, counts)
    decision = node.privacy.verify_lease(
        AccessRequest(lease_id, caller, (), None, usage["used"], usage["reserved"], node.limits.time_seconds)
    )
    reason = refusal_reason(decision)
    members = {**lease_members(found), "earner": found.earner, **usage, "may_run": reason is None, "reason": reason}
    return web.json_response(members)
