"""A request becomes a job: the lease asked, the script looked at, the reservation and the row in one transaction."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pandacea.domain.access import AccessDecision, Denied, Unknown, may_read
from pandacea.domain.charge import Charge, count_used
from pandacea.domain.code_approval import find_approval
from pandacea.domain.ids import Address, AssetId, ComputationId, Hash32, LeaseId, LeaseKey
from pandacea.domain.job import Job, Mode
from pandacea.domain.limits import MIB, Limits
from pandacea.domain.product import LiveOutput, Policy, Product, Release
from pandacea.errors import Refused, Unavailable
from pandacea.flows.ports import AccessRequest, Catalogue, Clock, CodeChecker, LeaseCache, PrivacyService
from pandacea.flows.result_store import ResultStore
from pandacea.flows.unit_of_work import Channel, Database, OutboxMessage, ReadSession, UnitOfWork, Unseen
from pandacea_sdk.protocol.receipt import derive_computation_id

PAGE_BYTES: Final = 4096
"""A file in a workspace takes whole pages."""
WORKSPACE_SPARE_BYTES: Final = MIB
"""Of a workspace, never taken by uploads: for folders, and for the script's own files."""


class ProblemError(Refused):
    """The lease does not allow this."""

    def __init__(self, code: str, detail: str, **context: object) -> None:
        """`code`: the stable problem code."""
        super().__init__(detail, **context)
        self.code = code  # type: ignore[misc]  # an instance of a family: the code is data here


@dataclass(frozen=True, slots=True)
class ComputationRequest:
    """What a Spender asks for, read and checked for form."""

    lease_id: LeaseId
    code: str
    inputs: tuple[tuple[AssetId, str], ...]
    """(asset_id, variable_name)"""
    params: str
    """JSON text."""
    uploads: dict[str, str]
    product_version: str | None
    mode: Mode
    body_sha256: str
    idempotency_key: str | None
    wants_token: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """Who signed the request, and the hash of what was signed."""

    address: Address
    request_hash: Hash32


@dataclass(frozen=True, slots=True)
class AcceptedJob:
    """The job, and the token that may poll it (told once, kept hashed). `repeated`: an earlier request had made the job."""

    job: Job
    token: str | None = None
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How much may wait."""

    max_per_spender: int
    max_total: int
    max_wait_seconds: float


@dataclass(frozen=True, slots=True)
class SubmitPorts:
    """What `submit` works with."""

    chain_id: int
    contract: Address
    database: Database
    leases: LeaseCache
    catalogue: Catalogue
    privacy: PrivacyService
    checker: CodeChecker
    clock: Clock
    limits: Limits
    queue: QueueLimits
    wake_workers: Callable[[], None]
    """A job is waiting."""
    results: ResultStore


async def submit_job(request: ComputationRequest, caller: Caller, ports: SubmitPorts) -> AcceptedJob:
    """Accept a computation.

    Raises:
        Forbidden: the lease, the product or the code policy says no; with the code the Spender sees.
        Unavailable: the node cannot know now, or has no room; nothing was written.
    """
    if request.idempotency_key is None:
        # From memory: what no count can change is refused before the database is asked for anything.
        require(_verify_lease(request, caller, ports, 0, 0))
    async with ports.database.read_session() as view:
        known = await find_earlier(view, request, caller, ports)
        if known is None:
            require(_verify_lease(request, caller, ports, *await _count_use(view, request, ports)))
    if known is not None:
        return await answer_repeated(known, request, ports)
    product = _find_product(request, ports)
    decision = await _decide_policy(request, caller, product, ports)
    # Nobody waits in one request for a result that waits for a person: such a request is answered like an asynchronous one.
    token = secrets.token_urlsafe(32) if request.wants_token or product.rules.release is Release.HOLD else None
    job = build_job(request, caller, product, decision, token, ports)
    async with ports.database.unit_of_work() as work:
        known = await find_earlier(work, request, caller, ports)
        if known is None:
            # Asked again inside the transaction: two requests for the last computation cannot both pass.
            require(_verify_lease(request, caller, ports, *await _count_use(work, request, ports)))
            await insert_job(work, job, caller, ports)
    return AcceptedJob(job, token) if known is None else await answer_repeated(known, request, ports)


async def insert_job(work: UnitOfWork, job: Job, caller: Caller, ports: SubmitPorts) -> None:
    """Insert a job and commit, if there is room for it and its uploads are here.

    Raises:
        Forbidden: `too-many-jobs`, `upload-unknown`, `uploads-too-large`, `request-replayed`.
        Unavailable: the queue, the disk or the Spender's room for results is full.
    """
    # Quotas count what the Spender may see: a refusal would tell when a held run ended, and what it left.
    unseen = (await work.jobs.unseen(job.created_at - ports.limits.time_seconds)).get(caller.address, Unseen(0, 0))
    await _require_queue_room(work, caller, ports.queue, unseen)
    limits = ports.limits.of_rehearsals() if job.mode is Mode.MOCK else ports.limits
    await ports.results.require_room(work, limits, caller.address, job.mode, unseen)
    await _require_uploads(work, job, ports.limits)
    if await work.jobs.find_job(job.computation_id) is not None:
        raise ProblemError("request-replayed", "This very request made a computation before; sign a new one with a new nonce.")
    await work.jobs.insert_job(job)
    await work.outbox.put_message(job_message(job), job.created_at)
    work.after_commit(ports.wake_workers)
    await work.commit()


async def answer_repeated(job: Job, request: ComputationRequest, ports: SubmitPorts) -> AcceptedJob:
    """Answer a retry with the job its first try made, and with a new token: the first may never have come."""
    if not (request.wants_token or job.release == Release.HOLD):
        return AcceptedJob(job, is_repeated=True)
    token = secrets.token_urlsafe(32)
    async with ports.database.unit_of_work() as work:
        await work.jobs.update_token(job.computation_id, hash_token(token))
        await work.commit()
    return AcceptedJob(job, token, is_repeated=True)


async def _require_uploads(view: ReadSession, job: Job, limits: Limits) -> None:
    taken = 0
    for name, digest in job.uploads.items():
        size = await view.uploads.find_size(job.spender, digest, job.created_at)
        if size is None:
            raise ProblemError(
                "upload-unknown", f"The upload {name} ({digest}) is not on this node (any more); send it first, with PUT."
            )
        taken += -(-size // PAGE_BYTES) * PAGE_BYTES
    room = limits.workspace_bytes - WORKSPACE_SPARE_BYTES
    if taken > room:
        raise ProblemError(
            "uploads-too-large",
            f"The uploads named take {taken:,} bytes of the sandbox's /workspace; of its {limits.workspace_bytes // MIB} MiB they may take "
            f"{room:,}. Name fewer, or smaller ones.",
        )


def hash_token(token: str) -> str:
    """What is kept of a job token: sha-256 hex of its text."""
    return hashlib.sha256(token.encode()).hexdigest()


def require(answer: AccessDecision) -> None:
    """Turn an answer of `domain.access` into its error.

    Raises:
        Forbidden: denied.
        Unavailable: unknown.
    """
    if isinstance(answer, Denied):
        raise ProblemError(answer.code, answer.detail)
    if isinstance(answer, Unknown):
        raise Unavailable(answer.detail, retry_after=answer.retry_after)


def job_message(job: Job, **more: object) -> OutboxMessage:
    """A job's life as it is told over MQTT: ids and states, never content."""
    payload = {"computation_id": job.computation_id, "lease_id": job.lease_id, "state": job.state.value, **more}
    return OutboxMessage(Channel.MQTT, f"mqtt:{job.computation_id}:{job.state}:{job.attempt}", f"computations/{job.state}", payload)


async def find_earlier(view: ReadSession, request: ComputationRequest, caller: Caller, ports: SubmitPorts) -> Job | None:
    """The job that an earlier request with this Idempotency-Key made.

    Raises:
        Forbidden: the key was used with another body, or the lease does not allow to read any more.
        Unavailable: the node cannot know now.
    """
    if request.idempotency_key is None:
        return None
    lease = LeaseKey(ports.chain_id, ports.contract, request.lease_id)
    job = await view.jobs.find_by_idempotency_key(caller.address, lease, request.idempotency_key)
    if job is None:
        return None
    require(may_read(ports.leases.find_lease(job.lease_id), ports.leases.chain_status(), caller=caller.address))
    if job.body_sha256 != request.body_sha256:
        raise ProblemError(
            "idempotency-conflict", "This Idempotency-Key was used with another body; take a new key for a new computation."
        )
    return job


async def _count_use(view: ReadSession, order: ComputationRequest, ports: SubmitPorts) -> tuple[int, int]:
    counts = await view.jobs.count_by_charge(LeaseKey(ports.chain_id, ports.contract, order.lease_id))
    lease = ports.leases.find_lease(order.lease_id)
    return count_used(counts, lease.committed_count if lease else 0), counts.get(Charge.RESERVED, 0)


def _verify_lease(order: ComputationRequest, caller: Caller, ports: SubmitPorts, charged: int, reserved: int) -> AccessDecision:
    assets = tuple(asset_id for asset_id, _ in order.inputs)
    limit = ports.limits.time_seconds
    return ports.privacy.verify_lease(
        AccessRequest(order.lease_id, caller.address, assets, order.product_version, charged, reserved, limit)
    )


def _find_product(order: ComputationRequest, ports: SubmitPorts) -> Product:
    lease = ports.leases.find_lease(order.lease_id)
    product = ports.catalogue.find_by_hash(lease.data_product_id) if lease and lease.data_product_id else None
    if product is None:  # it was there a moment ago: withdrawn between two awaits
        raise ProblemError("product-unknown", "The product of this lease is no longer offered by this node.")
    return product


async def _decide_policy(order: ComputationRequest, caller: Caller, product: Product, ports: SubmitPorts) -> str:
    """Why this script may run on this product, as the manifest says it."""
    if product.rules.policy is Policy.ANY_CODE:
        await ports.checker.check_code(order.code, caller.address)
        return f"{product.rules.policy}: passed the static check"
    digest = hashlib.sha256(order.code.encode()).hexdigest()
    async with ports.database.read_session() as view:
        submissions = await view.code.find_by_script(product.product_id, digest)
    inputs = {name: str(asset_id) for asset_id, name in order.inputs}
    columns = product.columns_of(inputs.values())
    decision = find_approval(submissions, inputs, list(order.uploads), json.loads(order.params), columns)
    if decision.code_id is None:
        raise ProblemError(decision.code, decision.detail)
    return f"{product.rules.policy}: {decision.code_id}"


async def _require_queue_room(view: ReadSession, caller: Caller, queue: QueueLimits, unseen: Unseen) -> None:
    if await view.jobs.count_queued(caller.address) + unseen.runs >= queue.max_per_spender:
        raise ProblemError(
            "too-many-jobs", f"You have {queue.max_per_spender} computations waiting or running here; wait for one to end."
        )
    if await view.jobs.count_queued() >= queue.max_total:
        raise Unavailable("The node's queue is full; try again in a minute.", retry_after=60)


def build_job(
    request: ComputationRequest, caller: Caller, product: Product, decision: str, token: str | None, ports: SubmitPorts
) -> Job:
    """The row a request becomes: what it may do is fixed here, whatever the product says later."""
    now = ports.clock.now()
    lease = ports.leases.find_lease(request.lease_id)
    digest = derive_computation_id(ports.chain_id, ports.contract, request.lease_id, caller.request_hash)
    return Job(
        computation_id=ComputationId(digest),
        chain_id=ports.chain_id,
        contract=ports.contract,
        lease_id=request.lease_id,
        spender=caller.address,
        request_hash=caller.request_hash,
        body_sha256=request.body_sha256,
        mode=request.mode,
        product_id=product.product_id,
        product_version=product.version,
        code=request.code,
        params=request.params,
        inputs=[
            {"asset_id": asset_id, "variable_name": name, "commitment": product.assets[asset_id].commitment}
            for asset_id, name in request.inputs
        ],
        uploads=request.uploads,
        policy_decision=decision,
        release=product.rules.release.value,
        live_output=product.rules.live_output.value,
        show_messages=product.rules.show_messages,
        max_computations=lease.max_computations if lease else 0,
        created_at=now,
        queue_deadline=now + ports.queue.max_wait_seconds,
        idempotency_key=request.idempotency_key,
        token_sha256=None if token is None else hash_token(token),
    )


__all__ = [
    "AcceptedJob",
    "Caller",
    "ComputationRequest",
    "LiveOutput",
    "ProblemError",
    "QueueLimits",
    "Release",
    "SubmitPorts",
    "require",
    "submit_job",
]
