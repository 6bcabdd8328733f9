"""One lease as its row holds it: events are folded into it in place, for they come by the hundred thousand."""

from __future__ import annotations

from typing import Any, Final

from pandacea.domain.chain_view import ChainEvent
from pandacea.domain.ids import Address, BlockNumber, ComputationId, Hash32, LeaseKey, Timestamp, Wei
from pandacea.domain.lease import (
    FINAL_STATUSES,
    DisputeRaised,
    DisputeResolved,
    Lease,
    LeaseApproved,
    LeaseCancelled,
    LeaseCreated,
    LeaseEvent,
    LeaseExecuted,
    LeaseFinalized,
    LeaseStatus,
    LeaseTerms,
    LeaseTransition,
    ResultCommitted,
    next_status,
)


class LeaseRecord:
    """Mutable accumulator of one lease. Tests fold random histories with it and with a plain fold, and compare the two."""

    __slots__ = (
        "approved_tx",
        "committed",
        "created_block",
        "earner",
        "fact_blocks",
        "key",
        "price",
        "resolved_for_spender",
        "seen_at",
        "spender",
        "status",
        "terms",
    )

    def __init__(
        self,
        key: LeaseKey,
        spender: Address,
        earner: Address,
        price: Wei,
        created_block: BlockNumber,
        *,
        seen_at: int = 0,
    ) -> None:
        """Begin with a lease just created; `seen_at`: timestamp of a block at or after its creation, by which pruning measures."""
        self.key = key
        self.spender = spender
        self.earner = earner
        self.price = price
        self.created_block = created_block
        self.status = CREATED_CODE
        """Index of its `LeaseStatus` in `STATUSES`."""
        self.terms: tuple[Hash32 | None, Timestamp | None, int] = (None, None, 1)
        """Data product id, expiry, number of computations."""
        self.committed: frozenset[ComputationId] = _NONE_COMMITTED
        self.fact_blocks: list[BlockNumber | None] = [None] * len(FACT_FIELDS)
        """The block that first showed each of `FACT_FIELDS`."""
        self.resolved_for_spender: bool | None = None
        self.approved_tx: Hash32 | None = None
        """The transaction that proves the approval."""
        self.seen_at = seen_at

    def copy(self) -> LeaseRecord:
        """Return a copy that events may be folded into."""
        record = LeaseRecord(self.key, self.spender, self.earner, self.price, self.created_block, seen_at=self.seen_at)
        record.status, record.terms, record.committed = self.status, self.terms, self.committed
        record.fact_blocks = self.fact_blocks.copy()
        record.resolved_for_spender, record.approved_tx = self.resolved_for_spender, self.approved_tx
        return record

    def apply(self, seen: ChainEvent) -> None:
        """Fold one event into the lease."""
        event: Any = seen.event
        kind = type(event)
        if kind is LeaseTerms:
            if self.terms[0] is None:
                self.terms = (event.data_product_id, event.expires_at, event.max_computations)
        elif kind is ResultCommitted:
            self.committed = self.committed | {event.computation_id}
            self.status = _COMMIT[self.status]
        elif kind is DisputeResolved:
            if self.fact_blocks[_RESOLVED] is None:
                self.fact_blocks[_RESOLVED] = seen.block
                self.resolved_for_spender = event.is_dispute_valid
                self.status = (_RESOLVE_VALID if event.is_dispute_valid else _RESOLVE_INVALID)[self.status]
        elif kind is not LeaseCreated:
            index, next_codes = _TRANSITIONS[kind]
            if self.fact_blocks[index] is None:
                self.fact_blocks[index] = seen.block
            self.status = next_codes[self.status]
            if kind is LeaseApproved and self.approved_tx is None:
                self.approved_tx = seen.transaction

    def has_fact_of(self, event: LeaseEvent) -> bool:
        """Whether an event of this lease was folded in, as far as the record shows."""
        match event:
            case LeaseCreated():
                return True
            case LeaseTerms():
                return self.terms[0] is not None
            case ResultCommitted(computation_id=computation_id):
                return computation_id in self.committed
            case DisputeResolved():
                return self.fact_blocks[_RESOLVED] is not None
            case _:
                return self.fact_blocks[_TRANSITIONS[type(event)][0]] is not None

    @property
    def approved_block(self) -> BlockNumber | None:
        """The block of its approval; None: not approved."""
        return self.fact_blocks[0]

    @property
    def in_dispute(self) -> bool:
        """Whether a dispute is open."""
        return self.fact_blocks[_DISPUTED] is not None and self.fact_blocks[_RESOLVED] is None and self.status not in FINAL_CODES

    @property
    def lease(self) -> Lease:
        """The lease as a frozen value."""
        product, expires_at, most = self.terms
        approved, executed, cancelled, finalized, disputed, resolved = self.fact_blocks
        return Lease(
            self.key,
            self.spender,
            self.earner,
            self.price,
            self.created_block,
            STATUSES[self.status],
            product,
            expires_at,
            most,
            self.committed,
            approved,
            executed,
            cancelled,
            finalized,
            disputed,
            resolved,
            self.resolved_for_spender,
        )

    def __eq__(self, other: object) -> bool:
        """Compare the leases slot by slot."""
        return isinstance(other, LeaseRecord) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]  # mutable: must not be a key

    def __repr__(self) -> str:
        return f"LeaseRecord({self.lease!r}, {self.approved_tx!r}, {self.seen_at!r})"


FACT_FIELDS: Final = ("approved_block", "executed_block", "cancelled_block", "finalized_block", "disputed_block", "resolved_block")
"""The facts of a lease, in the order of `Lease`'s fields."""
_DISPUTED: Final = FACT_FIELDS.index("disputed_block")
_RESOLVED: Final = FACT_FIELDS.index("resolved_block")
_NONE_COMMITTED: Final[frozenset[ComputationId]] = frozenset()
STATUSES: Final = tuple(LeaseStatus)
STATUS_CODE: Final = {status: code for code, status in enumerate(STATUSES)}
CREATED_CODE: Final = STATUS_CODE[LeaseStatus.CREATED]
FINAL_CODES: Final = frozenset(STATUS_CODE[status] for status in FINAL_STATUSES)


def _next_codes(transition: LeaseTransition) -> tuple[int, ...]:
    """Tabulate `next_status` of a transition by status code: hashing an enum takes Python code, indexing a tuple does not."""
    return tuple(STATUS_CODE[next_status(status, transition)] for status in STATUSES)


_COMMIT: Final = _next_codes(LeaseTransition.COMMIT)
_RESOLVE_VALID: Final = _next_codes(LeaseTransition.RESOLVE_VALID)
_RESOLVE_INVALID: Final = _next_codes(LeaseTransition.RESOLVE_INVALID)
_TRANSITIONS: Final[dict[type[LeaseEvent], tuple[int, tuple[int, ...]]]] = {
    LeaseApproved: (0, _next_codes(LeaseTransition.APPROVE)),
    LeaseExecuted: (1, _next_codes(LeaseTransition.EXECUTE)),
    LeaseCancelled: (2, _next_codes(LeaseTransition.CANCEL)),
    LeaseFinalized: (3, _next_codes(LeaseTransition.FINALIZE)),
    DisputeRaised: (4, _next_codes(LeaseTransition.DISPUTE)),
}
