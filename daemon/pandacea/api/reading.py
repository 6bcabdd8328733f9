"""Who may read a computation: asked at the door, and again wherever something of it is about to leave."""

from __future__ import annotations

from aiohttp import web

from pandacea.api.auth import job_token, signed
from pandacea.api.middleware import belongs_to
from pandacea.api.node import Node
from pandacea.domain.access import Denied, may_read
from pandacea.domain.ids import HASH32, Address
from pandacea.domain.job import TERMINAL, Job, JobState
from pandacea.flows.cancel import as_seen
from pandacea.flows.submit import Forbidden, allow
from pandacea.flows.watch import until
from pandacea_sdk.protocol.job_token import job_token_opens
from pandacea_sdk.protocol.problems import ProtocolError

_UNKNOWN = "No computation of yours has this id here."


async def readable(request: web.Request, node: Node, *, token_opens: bool = True) -> Job:
    """The computation of the path, if this caller may read it. An unknown id and somebody else's look alike.

    Raises:
        Forbidden: `computation-unknown`, or why its lease does not allow it.
        ProtocolError: `job-token-invalid`, or what is wrong with the signature.
        Unavailable: the node cannot know now.
    """
    computation_id = request.match_info["computation_id"]
    token = job_token(request) if token_opens else None
    spender = None if token else Address((await signed(request)).address)
    job = await current(computation_id, node) if HASH32.fullmatch(computation_id) else None
    if token:
        if job is None or job.token_sha256 is None or not job_token_opens(token, job.token_sha256):
            raise ProtocolError("job-token-invalid", "This job token opens no such computation; sign the request instead.")
        belongs_to(request, job.spender)
    elif job is None or job.spender != spender:
        raise Forbidden("computation-unknown", _UNKNOWN)
    assert job is not None
    still_readable(job, node)
    return job


def still_readable(job: Job, node: Node) -> None:
    """Ask the lease again, from memory.

    Raises:
        Forbidden, Unavailable: nothing more of this computation may leave.
    """
    answer = may_read(node.book.lease(job.lease_id), node.book.standing(), caller=Address(job.spender))
    if isinstance(answer, Denied) and answer.code == "lease-unknown":
        answer = Denied("computation-unknown", _UNKNOWN)
    allow(answer)


async def current(computation_id: str, node: Node) -> Job | None:
    """The row as its Spender may see it now."""
    async with node.books.read() as view:
        job = await view.jobs.get(computation_id)
    return None if job is None else as_seen(job)


def seen(job: Job, node: Node) -> JobState:
    """The state as its Spender may see it now."""
    return job.seen_state(node.clock.now(), node.submit.limits.time_seconds)


def settled(job: Job, node: Node) -> bool:
    """Whether waiting longer would show nothing new: it ended, or reads as held."""
    return seen(job, node) in TERMINAL | {JobState.HELD}


async def settles(job: Job, node: Node, seconds: float) -> Job:
    """Wait until the computation is settled, at most `seconds`; the row as it is then. Ask the lease again afterwards."""
    deadline = node.clock.now() + seconds
    with node.watch.joined(job.computation_id) as changed:
        while True:
            changed.clear()
            job = await current(job.computation_id, node) or job
            left = deadline - node.clock.now()
            if settled(job, node) or left <= 0 or (node.watch.stopping and job.state is not JobState.RUNNING):
                return job
            await until(changed, min(left, _until_shown(job, node)))


def _until_shown(job: Job, node: Node) -> float:
    if job.state is not JobState.HELD:
        return float("inf")
    return max(job.held_shows_at(node.submit.limits.time_seconds) - node.clock.now(), 0.01)
