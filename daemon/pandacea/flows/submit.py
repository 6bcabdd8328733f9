"""A request becomes a job: the lease asked, the script looked at, the reservation and the row in one transaction."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pandacea.domain.access import Answer, Denied, Unknown, may_read
from pandacea.domain.charge import Charge, used
from pandacea.domain.code import covered
from pandacea.domain.ids import Address, AssetId, ComputationId, Hash32, LeaseId, LeaseKey
from pandacea.domain.job import Job, Mode
from pandacea.domain.limits import MIB, Limits
from pandacea.domain.product import LiveOutput, Policy, Product, Release
from pandacea.errors import Refused, Unavailable
from pandacea.flows.books import Books, Channel, Message, View, Work
from pandacea.flows.ports import Catalogue, Clock, CodeChecker, LeaseBook, PrivacyService, RunQuestion
from pandacea.flows.shelf import Shelf
from pandacea_sdk.protocol.receipt import computation_id

PAGE_BYTES: Final = 4096
"""A file in a workspace takes whole pages."""
WORKSPACE_SPARE_BYTES: Final = MIB
"""Of a workspace, never taken by uploads: for folders, and for the script's own files."""


class Forbidden(Refused):
    """The lease does not allow this."""

    def __init__(self, code: str, detail: str, **context: object) -> None:
        """`code`: the stable problem code."""
        super().__init__(detail, **context)
        self.code = code  # type: ignore[misc]  # an instance of a family: the code is data here


@dataclass(frozen=True, slots=True)
class Order:
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
class Accepted:
    """The job, and the token that may poll it (told once, kept hashed). `repeated`: an earlier request had made the job."""

    job: Job
    token: str | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """How much may wait."""

    per_spender: int
    total: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SubmitPorts:
    """What `submit` works with."""

    chain_id: int
    contract: Address
    books: Books
    book: LeaseBook
    catalogue: Catalogue
    privacy: PrivacyService
    checker: CodeChecker
    clock: Clock
    limits: Limits
    queue: Queue
    wake: Callable[[], None]
    """A job is waiting."""
    shelf: Shelf


async def submit(order: Order, caller: Caller, ports: SubmitPorts) -> Accepted:
    """Accept a computation.

    Raises:
        Forbidden: the lease, the product or the code policy says no; with the code the Spender sees.
        Unavailable: the node cannot know now, or has no room; nothing was written.
    """
    if order.idempotency_key is None:
        # From memory: what no count can change is refused before the database is asked for anything.
        allow(_ask(order, caller, ports, 0, 0))
    async with ports.books.read() as view:
        known = await earlier(view, order, caller, ports)
        if known is None:
            allow(_ask(order, caller, ports, *await _counts(view, order, ports)))
    if known is not None:
        return await repeated(known, order, ports)
    product = _product(order, ports)
    decision = await _policy(order, product, ports)
    # Nobody waits in one request for a result that waits for a person: such a request is answered like an asynchronous one.
    token = secrets.token_urlsafe(32) if order.wants_token or product.rules.release is Release.HOLD else None
    job = job_of(order, caller, product, decision, token, ports)
    async with ports.books.write() as work:
        known = await earlier(work, order, caller, ports)
        if known is None:
            # Asked again inside the transaction: two requests for the last computation cannot both pass.
            allow(_ask(order, caller, ports, *await _counts(work, order, ports)))
            await accept(work, job, caller, ports)
    return Accepted(job, token) if known is None else await repeated(known, order, ports)


async def accept(work: Work, job: Job, caller: Caller, ports: SubmitPorts) -> None:
    """Insert a job and commit, if there is room for it and its uploads are here.

    Raises:
        Forbidden: `too-many-jobs`, `upload-unknown`, `uploads-too-large`, `request-replayed`.
        Unavailable: the queue, the disk or the Spender's room for results is full.
    """
    await _room(work, caller, ports.queue)
    limits = ports.limits.of_rehearsals() if job.mode is Mode.MOCK else ports.limits
    await ports.shelf.need_room(work, limits, caller.address, job.mode)
    await _uploads(work, job, ports.limits)
    if await work.jobs.get(job.computation_id) is not None:
        raise Forbidden("request-replayed", "This very request made a computation before; sign a new one with a new nonce.")
    await work.jobs.add(job)
    await work.outbox.put(job_message(job), job.created_at)
    work.after_commit(ports.wake)
    await work.commit()


async def repeated(job: Job, order: Order, ports: SubmitPorts) -> Accepted:
    """Answer a retry with the job its first try made, and with a new token: the first may never have come."""
    if not (order.wants_token or job.release == Release.HOLD):
        return Accepted(job, repeated=True)
    token = secrets.token_urlsafe(32)
    async with ports.books.write() as work:
        await work.jobs.set_token(job.computation_id, token_hash(token))
        await work.commit()
    return Accepted(job, token, repeated=True)


async def _uploads(view: View, job: Job, limits: Limits) -> None:
    taken = 0
    for name, digest in job.uploads.items():
        size = await view.uploads.size(job.spender, digest, job.created_at)
        if size is None:
            raise Forbidden(
                "upload-unknown", f"The upload {name} ({digest}) is not on this node (any more); send it first, with PUT."
            )
        taken += -(-size // PAGE_BYTES) * PAGE_BYTES
    room = limits.workspace_bytes - WORKSPACE_SPARE_BYTES
    if taken > room:
        raise Forbidden(
            "uploads-too-large",
            f"The uploads named take {taken:,} bytes of the sandbox's /workspace; of its {limits.workspace_bytes // MIB} MiB they may take "
            f"{room:,}. Name fewer, or smaller ones.",
        )


def token_hash(token: str) -> str:
    """What is kept of a job token: sha-256 hex of its text."""
    return hashlib.sha256(token.encode()).hexdigest()


def allow(answer: Answer) -> None:
    """Turn an answer of `domain.access` into its error.

    Raises:
        Forbidden: denied.
        Unavailable: unknown.
    """
    if isinstance(answer, Denied):
        raise Forbidden(answer.code, answer.detail)
    if isinstance(answer, Unknown):
        raise Unavailable(answer.detail, retry_after=answer.retry_after)


def job_message(job: Job, **more: object) -> Message:
    """A job's life as it is told over MQTT: ids and states, never content."""
    payload = {"computation_id": job.computation_id, "lease_id": job.lease_id, "state": job.state.value, **more}
    return Message(Channel.MQTT, f"mqtt:{job.computation_id}:{job.state}:{job.attempt}", f"computations/{job.state}", payload)


async def earlier(view: View, order: Order, caller: Caller, ports: SubmitPorts) -> Job | None:
    """The job that an earlier request with this Idempotency-Key made.

    Raises:
        Forbidden: the key was used with another body, or the lease does not allow to read any more.
        Unavailable: the node cannot know now.
    """
    if order.idempotency_key is None:
        return None
    lease = LeaseKey(ports.chain_id, ports.contract, order.lease_id)
    job = await view.jobs.by_idempotency_key(caller.address, lease, order.idempotency_key)
    if job is None:
        return None
    allow(may_read(ports.book.lease(job.lease_id), ports.book.standing(), caller=caller.address))
    if job.body_sha256 != order.body_sha256:
        raise Forbidden(
            "idempotency-conflict", "This Idempotency-Key was used with another body; take a new key for a new computation."
        )
    return job


async def _counts(view: View, order: Order, ports: SubmitPorts) -> tuple[int, int]:
    counts = await view.jobs.counted(LeaseKey(ports.chain_id, ports.contract, order.lease_id))
    lease = ports.book.lease(order.lease_id)
    return used(counts, lease.committed_count if lease else 0), counts.get(Charge.RESERVED, 0)


def _ask(order: Order, caller: Caller, ports: SubmitPorts, charged: int, reserved: int) -> Answer:
    assets = tuple(asset_id for asset_id, _ in order.inputs)
    limit = ports.limits.time_seconds
    return ports.privacy.verify_lease(
        RunQuestion(order.lease_id, caller.address, assets, order.product_version, charged, reserved, limit)
    )


def _product(order: Order, ports: SubmitPorts) -> Product:
    lease = ports.book.lease(order.lease_id)
    product = ports.catalogue.by_hash(lease.data_product_id) if lease and lease.data_product_id else None
    if product is None:  # it was there a moment ago: withdrawn between two awaits
        raise Forbidden("product-unknown", "The product of this lease is no longer offered by this node.")
    return product


async def _policy(order: Order, product: Product, ports: SubmitPorts) -> str:
    """Why this script may run on this product, as the manifest says it."""
    if product.rules.policy is Policy.ANY_CODE:
        await ports.checker.check(order.code)
        return f"{product.rules.policy}: passed the static check"
    digest = hashlib.sha256(order.code.encode()).hexdigest()
    async with ports.books.read() as view:
        submissions = await view.code.of_script(product.product_id, digest)
    inputs = {name: str(asset_id) for asset_id, name in order.inputs}
    columns = product.columns_of(inputs.values())
    decision = covered(submissions, inputs, list(order.uploads), json.loads(order.params), columns)
    if decision.code_id is None:
        raise Forbidden(decision.code, decision.detail)
    return f"{product.rules.policy}: {decision.code_id}"


async def _room(view: View, caller: Caller, queue: Queue) -> None:
    if await view.jobs.queued(caller.address) >= queue.per_spender:
        raise Forbidden("too-many-jobs", f"You have {queue.per_spender} computations waiting or running here; wait for one to end.")
    if await view.jobs.queued() >= queue.total:
        raise Unavailable("The node's queue is full; try again in a minute.", retry_after=60)


def job_of(order: Order, caller: Caller, product: Product, decision: str, token: str | None, ports: SubmitPorts) -> Job:
    """The row a request becomes: what it may do is fixed here, whatever the product says later."""
    now = ports.clock.now()
    lease = ports.book.lease(order.lease_id)
    digest = computation_id(ports.chain_id, ports.contract, order.lease_id, caller.request_hash)
    return Job(
        computation_id=ComputationId(digest),
        chain_id=ports.chain_id,
        contract=ports.contract,
        lease_id=order.lease_id,
        spender=caller.address,
        request_hash=caller.request_hash,
        body_sha256=order.body_sha256,
        mode=order.mode,
        product_id=product.product_id,
        product_version=product.version,
        code=order.code,
        params=order.params,
        inputs=[
            {"asset_id": asset_id, "variable_name": name, "commitment": product.assets[asset_id].commitment}
            for asset_id, name in order.inputs
        ],
        uploads=order.uploads,
        policy_decision=decision,
        release=product.rules.release.value,
        live_output=product.rules.live_output.value,
        show_messages=product.rules.show_messages,
        max_computations=lease.max_computations if lease else 0,
        created_at=now,
        queue_deadline=now + ports.queue.seconds,
        idempotency_key=order.idempotency_key,
        token_sha256=None if token is None else token_hash(token),
    )


__all__ = ["Accepted", "Caller", "Forbidden", "LiveOutput", "Order", "Queue", "Release", "SubmitPorts", "allow", "submit"]
