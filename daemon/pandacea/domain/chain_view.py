"""What the follower saw: blocks by hash, events by place, and the step that takes the node from one view to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

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

BEFORE_GENESIS: Final = BlockNumber(-1)
"""Lower than every block."""

NO_HASH: Final = Hash32("0x" + "0" * 64)
"""The parent of a genesis block."""


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block by number and hash; `timestamp` in Unix seconds."""

    number: BlockNumber
    hash: Hash32
    parent: Hash32
    timestamp: Timestamp


class ChainEvent(NamedTuple):
    """One event and where it stands. A log that says two things (v0) becomes two parts.

    A tuple, for they come by the hundred thousand.
    """

    block: BlockNumber
    block_hash: Hash32
    log_index: int
    transaction: Hash32
    event: LeaseEvent
    part: int = 0

    @property
    def position(self) -> tuple[BlockNumber, int, int]:
        """The order in which events happened."""
        return (self.block, self.log_index, self.part)

    @property
    def identity(self) -> tuple[Hash32, int, int]:
        """The same log seen twice has the same identity; the same log in another block has another."""
        return (self.block_hash, self.log_index, self.part)


@dataclass(frozen=True, slots=True)
class ChainView:
    """What the node holds of the chain.

    Everything up to `base` is settled: folded into lease rows, its events forgotten. Above it every block is held by hash,
    and every event by its block's hash, so a reorg is undone by forgetting blocks.
    """

    base: BlockRef
    blocks: tuple[BlockRef, ...] = ()
    """`base.number + 1` up to the tip, without gaps, each the parent of the next."""
    safe: BlockNumber = BEFORE_GENESIS
    finalized: BlockNumber = BEFORE_GENESIS

    @property
    def tip(self) -> BlockRef:
        """The last block processed."""
        return self.blocks[-1] if self.blocks else self.base

    def block_at(self, number: int) -> BlockRef | None:
        """The block held at a height, or None below the base and above the tip."""
        offset = number - self.base.number
        if offset == 0:
            return self.base
        return self.blocks[offset - 1] if 0 < offset <= len(self.blocks) else None


@dataclass(frozen=True, slots=True)
class ChainUpdate:
    """One move of the view, made durable in one transaction: undo, append, settle, in this order."""

    undo_to: BlockRef | None = None
    """Forget everything above this block first (a reorg)."""
    blocks: tuple[BlockRef, ...] = ()
    events: tuple[ChainEvent, ...] = ()
    settle_to: BlockRef | None = None
    """Fold everything up to this block into lease rows and hold its blocks no longer."""
    safe: BlockNumber = BEFORE_GENESIS
    finalized: BlockNumber = BEFORE_GENESIS

    def apply_to(self, view: ChainView) -> ChainView:
        """The view after this step."""
        blocks = view.blocks
        base = view.base
        if self.undo_to is not None:
            blocks = blocks[: max(0, self.undo_to.number - base.number)]
        blocks += self.blocks
        if self.settle_to is not None:
            blocks = blocks[max(0, self.settle_to.number - base.number) :]
            base = self.settle_to
        # A lagging endpoint may report earlier ones; what was final stays final. A reorg takes `safe` back with it.
        safe = view.safe if self.undo_to is None else min(view.safe, self.undo_to.number)
        return ChainView(base, blocks, BlockNumber(max(safe, self.safe)), BlockNumber(max(view.finalized, self.finalized)))


class LeaseRecord:
    """A lease as rows hold it, while events are folded into it: what `domain.lease.apply` does, without a frozen copy per event.

    Tests fold random histories both ways and hold the two against each other.
    """

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
        """A lease just created; `seen_at`: timestamp of a block at or after its creation, what pruning measures by."""
        self.key = key
        self.spender = spender
        self.earner = earner
        self.price = price
        self.created_block = created_block
        self.status = CREATED_CODE
        """Code of its `LeaseStatus`: its place among them."""
        self.terms: tuple[Hash32 | None, Timestamp | None, int] = (None, None, 1)
        """Data product id, expiry, computations."""
        self.committed: frozenset[ComputationId] = _NONE_COMMITTED
        self.fact_blocks: list[BlockNumber | None] = [None] * len(FACT_FIELDS)
        """The block of each of `FACTS`."""
        self.resolved_for_spender: bool | None = None
        self.approved_tx: Hash32 | None = None
        """The transaction to prove its approval by."""
        self.seen_at = seen_at

    def copy(self) -> LeaseRecord:
        """Another one that may be folded into."""
        held = LeaseRecord(self.key, self.spender, self.earner, self.price, self.created_block, seen_at=self.seen_at)
        held.status, held.terms, held.committed, held.fact_blocks = self.status, self.terms, self.committed, self.fact_blocks.copy()
        held.resolved_for_spender, held.approved_tx = self.resolved_for_spender, self.approved_tx
        return held

    def apply(self, seen: ChainEvent) -> None:
        """Fold one event in."""
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
            place, leads = _PLACES[kind]
            if self.fact_blocks[place] is None:
                self.fact_blocks[place] = seen.block
            self.status = leads[self.status]
            if kind is LeaseApproved and self.approved_tx is None:
                self.approved_tx = seen.transaction

    @property
    def approved_block(self) -> BlockNumber | None:
        """Where its approval is, if anywhere."""
        return self.fact_blocks[0]

    @property
    def in_dispute(self) -> bool:
        """Whether a dispute is open."""
        return self.fact_blocks[_DISPUTED] is not None and self.fact_blocks[_RESOLVED] is None and self.status not in FINAL_CODES

    @property
    def lease(self) -> Lease:
        """What it came to."""
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
        """By everything held."""
        return isinstance(other, LeaseRecord) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"LeaseRecord({self.lease!r}, {self.approved_tx!r}, {self.seen_at!r})"


FACT_FIELDS: Final = ("approved_block", "executed_block", "cancelled_block", "finalized_block", "disputed_block", "resolved_block")
"""The blocks that first showed each fact, in the order of `Lease`'s fields."""
_DISPUTED: Final = FACT_FIELDS.index("disputed_block")
_RESOLVED: Final = FACT_FIELDS.index("resolved_block")
_NONE_COMMITTED: Final[frozenset[ComputationId]] = frozenset()
STATUSES: Final = tuple(LeaseStatus)
STATUS_CODE: Final = {status: code for code, status in enumerate(STATUSES)}
CREATED_CODE: Final = STATUS_CODE[LeaseStatus.CREATED]
FINAL_CODES: Final = frozenset(STATUS_CODE[status] for status in FINAL_STATUSES)


def _leads(move: LeaseTransition) -> tuple[int, ...]:
    """`next_status` of a move from every status, by code: an enum hashes itself in Python, a number does not."""
    return tuple(STATUS_CODE[next_status(status, move)] for status in STATUSES)


_COMMIT: Final = _leads(LeaseTransition.COMMIT)
_RESOLVE_VALID: Final = _leads(LeaseTransition.RESOLVE_VALID)
_RESOLVE_INVALID: Final = _leads(LeaseTransition.RESOLVE_INVALID)
_PLACES: Final[dict[type[Any], tuple[int, tuple[int, ...]]]] = {
    LeaseApproved: (0, _leads(LeaseTransition.APPROVE)),
    LeaseExecuted: (1, _leads(LeaseTransition.EXECUTE)),
    LeaseCancelled: (2, _leads(LeaseTransition.CANCEL)),
    LeaseFinalized: (3, _leads(LeaseTransition.FINALIZE)),
    DisputeRaised: (4, _leads(LeaseTransition.DISPUTE)),
}
