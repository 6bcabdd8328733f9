"""The proof of an approval: its kinds, and the terms that it is bound to."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Final

from pandacea.domain.ids import Hash32
from pandacea.domain.lease import NO_EXPIRY, Lease


class ProofStatus(StrEnum):
    """What proves to the node that the Earner approved a lease, or why nothing does yet."""

    PENDING = "pending"  # the approving transaction has not been checked yet
    UNPROVEN = "unproven"  # it was checked and proves nothing: what one endpoint shows is not enough
    SIGNED = "signed"  # the approving transaction carries the Earner's or operator's own signature over these terms
    AGREED = "agreed"  # two independent endpoints show the same lease
    ACKNOWLEDGED = "acknowledged"  # the operator said so on this machine


COUNTED_PROOFS: Final = frozenset({ProofStatus.SIGNED, ProofStatus.AGREED, ProofStatus.ACKNOWLEDGED})


def digest_lease_terms(lease: Lease) -> str:
    """Digest what an approval approves: a proof given for these terms counts for no others."""
    return digest_terms(
        lease.key.lease_id,
        lease.spender,
        lease.earner,
        lease.data_product_id,
        lease.price,
        lease.expires_at,
        lease.max_computations,
    )


def digest_terms(
    lease_id: str, spender: str, earner: str, product: str | None, price: int | str, expires_at: int | None, most: int
) -> str:
    """Return the sha-256 (hex) over a lease's terms."""
    expires = None if expires_at is None else min(expires_at, NO_EXPIRY)
    return hashlib.sha256(f"{lease_id}|{spender}|{earner}|{product}|{price}|{expires}|{most}".encode()).hexdigest()


def evaluate_proof(terms: str, approved_tx: Hash32 | None, kept: tuple[ProofStatus, str, Hash32 | None] | None) -> ProofStatus:
    """Return the status that a stored proof (status, terms digest, approving transaction) gives a lease with these terms now."""
    if kept is None:
        return ProofStatus.PENDING
    trust, for_terms, for_tx = kept
    if for_terms != terms or (trust is not ProofStatus.ACKNOWLEDGED and for_tx != approved_tx):
        return ProofStatus.PENDING
    return trust
