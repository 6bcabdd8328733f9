"""Decide who may do what, in three pure functions: `may_run`, `may_continue`, `may_read`.

Grant slowly, deny at once: an approval counts only at the configured confidence and with a proof that an RPC endpoint cannot make
up; a denial counts from the first block that shows it. Where the node cannot know, the decision is `Unknown`, never a guess.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from pandacea.domain.approval_proof import COUNTED_PROOFS, ProofStatus
from pandacea.domain.ids import Address, AssetId, BlockNumber, Hash32, LeaseId, Timestamp
from pandacea.domain.lease import FINAL_STATUSES, NO_EXPIRY, Lease, LeaseStatus
from pandacea.errors import ProblemError, Unavailable

CLOCK_SKEW_SECONDS: Final = 60
"""Seconds by which the chain's clock and the node's may differ; beyond that the node trusts neither."""


@dataclass(frozen=True, slots=True)
class CachedLease:
    """A lease as the lease cache holds it: what the three decisions need, and nothing more."""

    lease_id: LeaseId
    spender: Address
    earner: Address
    data_product_id: Hash32 | None
    expires_at: Timestamp | None
    """Unix seconds; None: no expiry (v0)."""
    max_computations: int
    status: LeaseStatus
    committed_count: int
    approved_block: BlockNumber | None
    in_dispute: bool
    resolved_for_spender: bool
    proof_status: ProofStatus
    contested: bool = False
    """Another endpoint shows a cancellation or a dispute that the followed endpoint does not show."""

    @classmethod
    def from_lease(cls, lease: Lease, proof_status: ProofStatus, *, contested: bool = False) -> CachedLease:
        """Take from a folded lease what the decisions need."""
        return cls(
            lease.key.lease_id,
            lease.spender,
            lease.earner,
            lease.data_product_id,
            lease.expires_at if lease.expires_at is not None and lease.expires_at < NO_EXPIRY else None,
            lease.max_computations,
            lease.status,
            lease.committed_count,
            lease.approved_block,
            lease.in_dispute,
            bool(lease.resolved_for_spender),
            proof_status,
            contested,
        )


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """How far the node has read the chain, and whether it may answer from that now."""

    head_number: BlockNumber
    head_timestamp: Timestamp
    confident_block: BlockNumber
    """Approvals in this block or before it count."""
    not_ready_reason: str | None
    """None: the node may answer. Otherwise one sentence: why it cannot know right now."""
    retry_after: int = 5
    """Seconds until asking again makes sense."""
    no_confidence_reason: str | None = None
    """Why no approval will ever count as the node is configured, and what its Earner must set; None: some will."""

    @property
    def is_ready(self) -> bool:
        """Whether decisions may be made at all."""
        return self.not_ready_reason is None


@dataclass(frozen=True, slots=True)
class ProductFacts:
    """The product of a lease as this node serves it now."""

    data_product_id: Hash32
    assets: frozenset[AssetId]
    version: str
    """Hash of the product version (schema, rows, commitments)."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The caller may do what was asked."""


@dataclass(frozen=True, slots=True)
class Denied:
    """The caller may not; `code` is the stable problem code, `detail` the sentence for the Spender."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The node cannot know now: 503 with Retry-After (seconds), nothing decided."""

    detail: str
    retry_after: int


AccessDecision = Granted | Denied | Unknown

GRANTED: Final = Granted()


def require(decision: AccessDecision) -> None:
    """Return when a decision grants, raise when it does not.

    Raises:
        ProblemError: denied, with the decision's code.
        Unavailable: unknown.
    """
    if isinstance(decision, Denied):
        raise ProblemError(decision.code, decision.detail)
    if isinstance(decision, Unknown):
        raise Unavailable(decision.detail, retry_after=decision.retry_after)


def chain_now(status: ChainStatus, clock: float) -> float:
    """Return the time by which expiry is measured (Unix seconds): never before the chain's, never before the node's less the skew."""
    return max(float(status.head_timestamp), clock - CLOCK_SKEW_SECONDS)


def may_run(
    lease: CachedLease | None,
    status: ChainStatus,
    *,
    caller: Address,
    earner: Address,
    product: ProductFacts | None,
    assets: Collection[AssetId],
    product_version: str | None,
    used: int,
    reserved: int,
    time_limit: float,
    clock: float,
) -> AccessDecision:
    """Decide whether `caller` may start a NEW computation on `assets` now. Asked at submit and again at start.

    Args:
        lease: the lease; None: not known here.
        status: how far the chain was read.
        caller: who signed the request.
        earner: this node's Earner.
        product: the product of the lease; None: this node does not serve it.
        assets: what the script is to be given.
        product_version: the version that the request names; None: the current one.
        used: computations charged in the database.
        reserved: accepted and not yet charged, without this one when asked at start.
        time_limit: seconds the run may take.
        clock: the node's own Unix time, in seconds.
    """
    if not status.is_ready:
        return _cannot_know(status)
    if lease is None or lease.spender != caller or lease.earner != earner:
        return _UNKNOWN_LEASE
    return (
        _ended(lease)
        or _used_up(lease, used, reserved)
        or _expired(lease, chain_now(status, clock), time_limit)
        or _not_approved(lease, status)
        or _outside_product(lease, product, assets, product_version)
        or GRANTED
    )


def may_continue(lease: CachedLease | None, status: ChainStatus) -> AccessDecision:
    """Decide whether an accepted computation may go on. A lease that was executed, finalized, used up or expired does not stop it."""
    if lease is not None and (denied := _withdrawn(lease)):
        return denied
    if not status.is_ready:
        return _cannot_know(status)
    if lease is None or lease.approved_block is None:
        return _APPROVAL_GONE
    return _not_proved(lease) or GRANTED


def may_read(lease: CachedLease | None, status: ChainStatus, *, caller: Address) -> AccessDecision:
    """Decide whether `caller` may read or cancel a computation of this lease: its status, result, artifacts and events."""
    if lease is not None and lease.spender != caller:
        return _UNKNOWN_LEASE
    return may_continue(lease, status)


_UNKNOWN_LEASE: Final = Denied(
    "lease-unknown",
    "No approved lease of yours with this id is known here. Check the id and the key you sign with; "
    "a lease counts only after the Earner approved it.",
)
_APPROVAL_GONE: Final = Denied(
    "approval-gone", "The chain no longer shows this lease's approval. Ask the Earner to approve it again, then resubmit."
)


def _cannot_know(status: ChainStatus) -> Unknown:
    return Unknown(
        f"The node cannot tell how this lease stands now: {status.not_ready_reason} Try again later.", status.retry_after
    )


def _withdrawn(lease: CachedLease) -> Denied | None:
    """Deny what ends even a running computation."""
    if lease.status is LeaseStatus.CANCELLED:
        return Denied("lease-cancelled", "This lease was cancelled on-chain; nothing more runs or leaves under it.")
    if lease.in_dispute:
        return Denied("lease-disputed", "A dispute is open on this lease; nothing runs or leaves until it is resolved.")
    if lease.resolved_for_spender:
        return Denied("lease-refunded", "This lease was refunded to its Spender; nothing more runs or leaves under it.")
    if lease.contested:
        return Denied(
            "lease-doubted", "One of the node's chain endpoints shows this lease as cancelled or disputed; the Earner must look."
        )
    return None


def _ended(lease: CachedLease) -> Denied | None:
    if denied := _withdrawn(lease):
        return denied
    if lease.status is LeaseStatus.EXECUTED or lease.status in FINAL_STATUSES:
        return Denied("lease-ended", f"This lease is {lease.status} on-chain; it allows no new computation. Create a new lease.")
    return None


def _used_up(lease: CachedLease, used: int, reserved: int) -> Denied | None:
    # A wiped database grants nothing: what was committed on-chain was used.
    spent = max(used, lease.committed_count)
    if spent + reserved < lease.max_computations:
        return None
    return Denied(
        "lease-used-up",
        f"This lease allows {lease.max_computations} computation(s): {spent} used, {reserved} under way. Create a new lease.",
    )


def _expired(lease: CachedLease, now: float, time_limit: float) -> Denied | None:
    if lease.expires_at is None or now + time_limit < lease.expires_at:
        return None
    if now >= lease.expires_at:
        return Denied("lease-expired", f"This lease expired at {lease.expires_at} (Unix time). Create a new lease.")
    return Denied(
        "lease-expires-too-soon",
        f"This lease expires at {lease.expires_at} (Unix time), before a run of up to {time_limit:.0f} s would be over. "
        "Create a new lease.",
    )


def _not_approved(lease: CachedLease, status: ChainStatus) -> Denied | Unknown | None:
    if lease.approved_block is None:
        return _UNKNOWN_LEASE
    if lease.approved_block > status.confident_block:
        if status.no_confidence_reason is not None:
            return Denied(
                "approval-unconfirmed", f"The Earner must look at this node's configuration: {status.no_confidence_reason}."
            )
        return Denied(
            "approval-unconfirmed",
            f"The approval is in block {lease.approved_block}; this node counts approvals up to block {status.confident_block} now. "
            "Try again in a few minutes.",
        )
    return _not_proved(lease)


def _not_proved(lease: CachedLease) -> Denied | Unknown | None:
    if lease.proof_status in COUNTED_PROOFS:
        return None
    if lease.proof_status is ProofStatus.PENDING:
        return Unknown("The node is checking who signed the approval of this lease. Try again later.", 2)
    return Denied(
        "approval-unproven",
        "The approval of this lease cannot be proved from the chain (an old contract, a contract wallet or a relayed approval). "
        "Ask the Earner to acknowledge it on their node (`pandacea leases acknowledge`).",
    )


def _outside_product(
    lease: CachedLease, product: ProductFacts | None, assets: Collection[AssetId], version: str | None
) -> Denied | None:
    if product is None or product.data_product_id != lease.data_product_id:
        return Denied("product-unknown", f"This node serves no product with the id hash {lease.data_product_id} of this lease.")
    outside = sorted(set(assets) - product.assets)
    if outside:
        return Denied("asset-outside-product", f"Not in this lease's product: {', '.join(outside)}. Ask for assets of the product.")
    if version is not None and version != product.version:
        return Denied(
            "product-version-moved",
            f"The product is now at version {product.version}; the request names {version}. Look at the product and ask again.",
        )
    return None
