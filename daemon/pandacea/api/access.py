"""Who may read a computation: checked when a request comes, and again before each piece of a result leaves."""

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
    """Load the computation of the path, if this caller may read it. An unknown id and one of another Spender are answered alike.

    Raises:
        ProblemError: `computation-unknown`, or why its lease does not allow it.
        ProtocolError: `job-token-invalid`, or what is wrong with the signature.
        Unavailable: the node cannot tell now.
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
    """Check again, from memory, that the lease allows its Spender to read.

    Raises:
        ProblemError, Unavailable: nothing more of this computation may leave.
    """
    decision = may_read(node.leases.find_lease(job.lease_id), node.leases.chain_status(), caller=Address(job.spender))
    if isinstance(decision, Denied) and decision.code == "lease-unknown":
        decision = Denied("computation-unknown", _UNKNOWN)
    require(decision)


async def load_job(computation_id: str, node: NodeContext) -> Job | None:
    """Load a computation's row as its Spender may see it now."""
    async with node.database.read_session() as session:
        job = await session.jobs.find_job(computation_id)
    return None if job is None else as_spender_sees(job)


def visible_state(job: Job, node: NodeContext) -> JobState:
    """Return the state as its Spender may see it now."""
    return job.visible_state(node.clock.now(), node.limits.time_seconds)


def is_settled(job: Job, node: NodeContext) -> bool:
    """Return whether waiting longer would show nothing new: it has ended, or is visible as held."""
    return visible_state(job, node) in TERMINAL | {JobState.HELD}


async def wait_until_settled(job: Job, node: NodeContext, seconds: float) -> Job:
    """Wait until the computation is settled, at most `seconds`, and return its row. Call `require_readable` afterwards."""
    deadline = node.clock.now() + seconds
    with node.notifier.subscribed(job.computation_id) as changed:
        while True:
            changed.clear()
            job = await load_job(job.computation_id, node) or job
            remaining = deadline - node.clock.now()
            if is_settled(job, node) or remaining <= 0 or (node.notifier.stopping and job.state is not JobState.RUNNING):
                return job
            await wait_for_event(changed, min(remaining, _seconds_until_visible(job, node)))


def _seconds_until_visible(job: Job, node: NodeContext) -> float:
    if job.state is not JobState.HELD:
        return float("inf")
    return max(job.held_visible_at(node.limits.time_seconds) - node.clock.now(), 0.01)
