"""Leases as packed rows: 65 bytes each and no objects, so that a hundred thousand cost the garbage collector nothing."""

from __future__ import annotations

import struct
from typing import Final

from pandacea.domain.access import CachedLease
from pandacea.domain.approval_proof import ProofStatus, digest_terms, evaluate_proof
from pandacea.domain.ids import Address, BlockNumber, Hash32, LeaseId, Timestamp
from pandacea.domain.lease import NO_EXPIRY
from pandacea.domain.lease_record import FINAL_CODES, STATUSES, LeaseRecord
from pandacea.flows.chain_store import ApprovedRow

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
        """Start without products."""
        self._products: list[Hash32] = []
        self._indexes: dict[Hash32, int] = {}

    def pack(self, held: LeaseRecord, trust: ProofStatus) -> bytes:
        """Pack an approved lease."""
        product, expires, most = held.terms
        return _PACKED.pack(
            bytes.fromhex(held.spender[2:]),
            bytes.fromhex(held.earner[2:]),
            self._product_index(product),
            _expiry(expires),
            min(most, _LIMIT32),
            len(held.committed),
            held.fact_blocks[0],
            held.status,
            (_IN_DISPUTE if held.in_dispute else 0) | (_FOR_SPENDER if held.resolved_for_spender else 0),
            _PENDING if trust is ProofStatus.PENDING else _TRUST_CODE[trust],  # an enum hashes itself in Python
        )

    def pack_row(self, row: ApprovedRow) -> bytes:
        """The same from a row as `store.leases.APPROVED` names its columns."""
        lease_id, spender, earner, product, expires, most, status, committed, approved, disputed, resolved, for_spender, *more = row
        approved_tx, price, kept_trust, kept_terms, kept_tx = more
        trust = ProofStatus.PENDING
        if kept_trust is not None:
            terms = digest_terms(lease_id, spender, earner, product, price, expires, most)
            trust = evaluate_proof(terms, approved_tx, (_TRUST_OF[kept_trust], kept_terms, kept_tx))
        code = _STATUS_OF[status]
        open_dispute = disputed is not None and resolved is None and code not in FINAL_CODES
        return _PACKED.pack(
            bytes.fromhex(spender[2:]),
            bytes.fromhex(earner[2:]),
            self._product_index(product),
            _expiry(expires),
            min(most, _LIMIT32),
            min(committed, _LIMIT32),
            approved,
            code,
            (_IN_DISPUTE if open_dispute else 0) | (_FOR_SPENDER if for_spender else 0),
            _TRUST_CODE[trust],
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
