"""Leases as packed rows: 65 bytes each and no objects, so that a hundred thousand cost the garbage collector nothing."""

from __future__ import annotations

import struct
from typing import Final

from pandacea.domain.access import CachedLease
from pandacea.domain.approval_proof import ProofStatus, digest_terms, evaluate_proof
from pandacea.domain.ids import Address, BlockNumber, Hash32, LeaseId, Timestamp
from pandacea.domain.lease import NO_EXPIRY
from pandacea.domain.lease_record import FINAL_CODES, STATUSES, LeaseRecord
from pandacea.flows.following.chain_store import ApprovedLease

_PACKED: Final = struct.Struct(">20s20siqIIqBBB")
# spender, earner, product (index in a list, -1: none), expiry (-1: none), max, committed, approved block, status, flags, proof status

_TRUSTS: Final = tuple(ProofStatus)
_TRUST_CODE: Final = {trust: code for code, trust in enumerate(_TRUSTS)}
_TRUST_OF: Final = {trust.value: trust for trust in _TRUSTS}
_STATUS_OF: Final = {status.value: code for code, status in enumerate(STATUSES)}
_PENDING: Final = _TRUST_CODE[ProofStatus.PENDING]
_EXPIRY: Final = struct.Struct(">q")
_IN_DISPUTE: Final = 1
_FOR_SPENDER: Final = 2
_LIMIT32: Final = 2**32 - 1


class LeasePacker:
    """Packs and unpacks leases; keeps each product once."""

    def __init__(self) -> None:
        """Start with no products."""
        self._products: list[Hash32] = []
        self._indexes: dict[Hash32, int] = {}

    def pack(self, record: LeaseRecord, proof_status: ProofStatus) -> bytes:
        """Pack an approved lease."""
        product, expires, max_computations = record.terms
        return _PACKED.pack(
            bytes.fromhex(record.spender[2:]),
            bytes.fromhex(record.earner[2:]),
            self._product_index(product),
            _expiry(expires),
            min(max_computations, _LIMIT32),
            len(record.committed),
            record.fact_blocks[0],
            record.status,
            (_IN_DISPUTE if record.in_dispute else 0) | (_FOR_SPENDER if record.resolved_for_spender else 0),
            _PENDING if proof_status is ProofStatus.PENDING else _TRUST_CODE[proof_status],  # an enum hashes itself in Python
        )

    def pack_row(self, row: ApprovedLease) -> bytes:
        """Pack a lease as the database has it."""
        proof_status = ProofStatus.PENDING
        if row.proof_status is not None and row.proof_terms_digest is not None:
            digest = digest_terms(
                row.lease_id, row.spender, row.earner, row.product, row.price, row.expires_at, row.max_computations
            )
            proof = (_TRUST_OF[row.proof_status], row.proof_terms_digest, row.proof_tx)
            proof_status = evaluate_proof(digest, row.approved_tx, proof)
        code = _STATUS_OF[row.status]
        open_dispute = row.disputed_block is not None and row.resolved_block is None and code not in FINAL_CODES
        return _PACKED.pack(
            bytes.fromhex(row.spender[2:]),
            bytes.fromhex(row.earner[2:]),
            self._product_index(row.product),
            _expiry(row.expires_at),
            min(row.max_computations, _LIMIT32),
            min(row.committed_count, _LIMIT32),
            row.approved_block,
            code,
            (_IN_DISPUTE if open_dispute else 0) | (_FOR_SPENDER if row.resolved_for_spender else 0),
            _TRUST_CODE[proof_status],
        )

    def unpack(self, lease_id: LeaseId, packed: bytes, *, contested: bool) -> CachedLease:
        """Unpack a lease as `domain.access` asks for it."""
        spender, earner, product, expires, most, committed, approved, status, flags, trust = _PACKED.unpack(packed)
        return CachedLease(
            lease_id,
            Address("0x" + spender.hex()),
            Address("0x" + earner.hex()),
            self._products[product] if product >= 0 else None,
            Timestamp(expires) if expires >= 0 else None,
            most,
            STATUSES[status],
            committed,
            BlockNumber(approved),
            bool(flags & _IN_DISPUTE),
            bool(flags & _FOR_SPENDER),
            _TRUSTS[trust],
            contested,
        )

    def _product_index(self, product: Hash32 | None) -> int:
        if product is None:
            return -1
        index = self._indexes.get(product)
        if index is None:
            index = self._indexes[product] = len(self._products)
            self._products.append(product)
        return index


def packed_spender(packed: bytes) -> bytes:
    """Return the Spender's address, 20 bytes."""
    return packed[:20]


def is_worth_proving(packed: bytes, now: float) -> bool:
    """Whether the lease could be used if its approval were proved; `now` in Unix seconds."""
    if packed[-1] != _PENDING:
        return False
    expires, status = _EXPIRY.unpack_from(packed, 44)[0], packed[-3]
    return (expires < 0 or expires > now) and status not in FINAL_CODES


def _expiry(expires: int | None) -> int:
    return -1 if expires is None or expires >= NO_EXPIRY else expires
