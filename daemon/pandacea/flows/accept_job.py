"""The steps by which a computation and a rehearsal are both accepted: the row, queue, uploads and quota, and retries of one request."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pandacea.domain.access import may_read, require
from pandacea.domain.ids import Address, AssetId, ComputationId, Hash32, LeaseId, LeaseKey
from pandacea.domain.job import Job, Mode
from pandacea.domain.limits import MIB, Limits
from pandacea.domain.product import Product, Release
from pandacea.errors import ProblemError, Unavailable
from pandacea.files.results import ResultStore
from pandacea.flows.messages import computation_event
from pandacea.flows.ports import Catalogue, Clock, CodeChecker, LeaseCache
from pandacea.flows.privacy import PrivacyService
from pandacea.flows.result_quota import require_room
from pandacea.flows.unit_of_work import Database, ReadSession, UnitOfWork, UnseenRuns
from pandacea_sdk.protocol.job_token import encode_job_token, hash_job_token
from pandacea_sdk.protocol.receipt import derive_computation_id

PAGE_BYTES: Final = 4096
"""A file in a workspace takes whole pages of this many bytes."""
WORKSPACE_SPARE_BYTES: Final = MIB
"""Bytes of a workspace that uploads never take: for folders, and for the script's own files."""


@dataclass(frozen=True, slots=True)
class ComputationRequest:
    """What a Spender asks for, parsed and checked for form."""

    lease_id: LeaseId
    code: str
    inputs: tuple[tuple[AssetId, str], ...]
    """(asset_id, variable_name)"""
    params: str
    """JSON text."""
    uploads: dict[str, str]
    """File name under /workspace/in -> sha-256 hex."""
    product_version: str | None
    mode: Mode
    body_sha256: str
    idempotency_key: str | None
    wants_token: bool
    seed: int | None = None
    """What the script's random generators start from (32 bits); None: the node chooses."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who signed the request, and the hash of what was signed."""

    address: Address
    request_hash: Hash32


@dataclass(frozen=True, slots=True)
class AcceptedJob:
    """The job, and the token that may poll it (shown once, stored hashed). `is_repeated`: an earlier request had made the job."""

    job: Job
    token: str | None = None
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How many jobs may wait or run, and how long one may wait."""

    max_per_spender: int
    max_total: int
    max_wait_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitPorts:
    """What accepting a job works with."""

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
    """Called when a job waits."""
    results: ResultStore

    def lease_key(self, lease_id: LeaseId) -> LeaseKey:
        """Name a lease of the followed contract."""
        return LeaseKey(self.chain_id, self.contract, lease_id)

    def find_product(self, lease_id: LeaseId) -> Product | None:
        """Find the product that a lease names; None when this node does not offer it."""
        lease = self.leases.find_lease(lease_id)
        return self.catalogue.find_by_hash(lease.data_product_id) if lease and lease.data_product_id else None


def new_token() -> str:
    """Draw a job token."""
    return encode_job_token(secrets.token_bytes(32))


def build_job(
    request: ComputationRequest, caller: Caller, product: Product, decision: str, token: str | None, ports: SubmitPorts
) -> Job:
    """Build the row of a request: what it may do is fixed here, whatever the product says later."""
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
        token_sha256=None if token is None else hash_job_token(token),
        seed=request.seed,
    )


async def insert_job(work: UnitOfWork, job: Job, caller: Caller, ports: SubmitPorts) -> None:
    """Insert a job and commit, if there is room for it and its uploads are here.

    Raises:
        ProblemError: `too-many-jobs`, `upload-unknown`, `uploads-too-large`, `request-replayed`.
        Unavailable: the queue, the disk or the Spender's quota of results is full.
    """
    # Quotas count what the Spender may see: otherwise a refusal would tell when a held run ended, and how much it left.
    unseen = (await work.jobs.count_unseen(job.created_at - ports.limits.time_seconds)).get(caller.address, UnseenRuns(0, 0))
    await _require_queue_room(work, caller, ports.queue, unseen)
    limits = ports.limits.of_rehearsals() if job.mode is Mode.MOCK else ports.limits
    await require_room(work, ports.results, limits, caller.address, job.mode, unseen)
    await _require_uploads(work, job, ports.limits)
    if await work.jobs.find_job(job.computation_id) is not None:
        raise ProblemError("request-replayed", "This very request made a computation before; sign a new one with a new nonce.")
    await work.jobs.insert_job(job)
    await work.outbox.put_event(computation_event(job), job.created_at)
    work.after_commit(ports.wake_workers)
    await work.commit()


async def find_earlier(session: ReadSession, request: ComputationRequest, caller: Caller, ports: SubmitPorts) -> Job | None:
    """Find the job that an earlier request with this Idempotency-Key made.

    Raises:
        ProblemError: the key was used with another body, or the lease does not allow to read any more.
        Unavailable: the node cannot know now.
    """
    if request.idempotency_key is None:
        return None
    job = await session.jobs.find_by_idempotency_key(caller.address, ports.lease_key(request.lease_id), request.idempotency_key)
    if job is None:
        return None
    require(may_read(ports.leases.find_lease(job.lease_id), ports.leases.chain_status(), caller=caller.address))
    if job.body_sha256 != request.body_sha256:
        raise ProblemError(
            "idempotency-conflict", "This Idempotency-Key was used with another body; take a new key for a new computation."
        )
    return job


async def answer_repeated(job: Job, request: ComputationRequest, ports: SubmitPorts) -> AcceptedJob:
    """Answer a retry with the job that its first try made, and with a new token: the first may have been lost on the way."""
    if not (request.wants_token or job.release == Release.HOLD):
        return AcceptedJob(job, is_repeated=True)
    token = new_token()
    async with ports.database.unit_of_work() as work:
        await work.jobs.update_token(job.computation_id, hash_job_token(token))
        await work.commit()
    return AcceptedJob(job, token, is_repeated=True)


async def _require_queue_room(session: ReadSession, caller: Caller, queue: QueueLimits, unseen: UnseenRuns) -> None:
    if await session.jobs.count_queued(caller.address) + unseen.count >= queue.max_per_spender:
        raise ProblemError(
            "too-many-jobs", f"You have {queue.max_per_spender} computations waiting or running here; wait for one to end."
        )
    if await session.jobs.count_queued() >= queue.max_total:
        raise Unavailable("The node's queue is full; try again in a minute.", retry_after=60)


async def _require_uploads(session: ReadSession, job: Job, limits: Limits) -> None:
    taken = 0
    for name, digest in job.uploads.items():
        size = await session.uploads.find_size(job.spender, digest, job.created_at)
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
