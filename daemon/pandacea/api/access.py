"""Who may read a computation: asked at the door, and again wherever something of it is about to leave."""

from __future__ import annotations

from aiohttp import web

from pandacea.api.auth import authenticate_spender, job_token
from pandacea.api.middleware import assign_to_spender
from pandacea.api.node import NodeContext
from pandacea.domain.access import Denied, may_read, require
from pandacea.domain.ids import HASH32, Address
from pandacea.domain.job import TERMINAL, Job, JobState
from pandacea.errors import ProblemError
from pandacea.flows.cancel import as_spender_sees
from pandacea.flows.live_output import wait_for_event
from pandacea_sdk.protocol.job_token import job_token_matches
from pandacea_sdk.protocol.problems import ProtocolError

_UNKNOWN = "No computation of yours has this id here."


async def load_readable_job(request: web.Request, node: NodeContext, *, token_opens: bool = True) -> Job:
    """The computation of the path, if this caller may read it. An unknown id and somebody else's look alike.

    Raises:
        Forbidden: `computation-unknown`, or why its lease does not allow it.
        ProtocolError: `job-token-invalid`, or what is wrong with the signature.
        Unavailable: the node cannot know now.
    """
    computation_id = request.match_info["computation_id"]
    token = job_token(request) if token_opens else None
    spender = None if token else Address((await authenticate_spender(request)).address)
    job = await load_job(computation_id, node) if HASH32.fullmatch(computation_id) else None
    if token:
        if job is None or job.token_sha256 is None or not job_token_matches(token, job.token_sha256):
            raise ProtocolError("job-token-invalid", "This job token opens no such computation; sign the request instead.")
        assign_to_spender(request, job.spender)
    elif job is None or job.spender != spender:
        raise ProblemError("computation-unknown", _UNKNOWN)
    assert job is not None
    require_readable(job, node)
    return job


def require_readable(job: Job, node: NodeContext) -> None:
    """Ask the lease again, from memory.

    Raises:
        Forbidden, Unavailable: nothing more of this computation may leave.
    """
    answer = may_read(node.leases.find_lease(job.lease_id), node.leases.chain_status(), caller=Address(job.spender))
    if isinstance(answer, Denied) and answer.code == "lease-unknown":
        answer = Denied("computation-unknown", _UNKNOWN)
    require(answer)


async def load_job(computation_id: str, node: NodeContext) -> Job | None:
    """The row as its Spender may see it now."""
    async with node.database.read_session() as view:
        job = await view.jobs.find_job(computation_id)
    return None if job is None else as_spender_sees(job)


def visible_state(job: Job, node: NodeContext) -> JobState:
    """The state as its Spender may see it now."""
    return job.visible_state(node.clock.now(), node.submit.limits.time_seconds)


def is_settled(job: Job, node: NodeContext) -> bool:
    """Whether waiting longer would show nothing new: it ended, or reads as held."""
    return visible_state(job, node) in TERMINAL | {JobState.HELD}


async def wait_until_settled(job: Job, node: NodeContext, seconds: float) -> Job:
    """Wait until the computation is settled, at most `seconds`; the row as it is then. Ask the lease again afterwards."""
    deadline = node.clock.now() + seconds
    with node.notifier.subscribed(job.computation_id) as changed:
        while True:
            changed.clear()
            job = await load_job(job.computation_id, node) or job
            left = deadline - node.clock.now()
            if is_settled(job, node) or left <= 0 or (node.notifier.stopping and job.state is not JobState.RUNNING):
                return job
            await wait_for_event(changed, min(left, _until_shown(job, node)))


def _until_shown(job: Job, node: NodeContext) -> float:
    if job.state is not JobState.HELD:
        return float("inf")
    return max(job.held_visible_at(node.submit.limits.time_seconds) - node.clock.now(), 0.01)
