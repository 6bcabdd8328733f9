"""What the follower saw: blocks by hash, events by place, and the step that takes the node from one view to the next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from pandacea.domain.ids import BlockNumber, ComputationId, Hash32, LeaseKey, Timestamp
from pandacea.domain.lease import (
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
    Move,
    ResultCommitted,
    apply,
    next_status,
)

BEFORE_ANY: Final = BlockNumber(-1)
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


class SeenEvent(NamedTuple):
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
    def place(self) -> tuple[BlockNumber, int, int]:
        """The order in which events happened."""
        return (self.block, self.log_index, self.part)

    @property
    def identity(self) -> tuple[Hash32, int, int]:
        """The same log seen twice has the same identity; the same log in another block has another."""
        return (self.block_hash, self.log_index, self.part)


@dataclass(frozen=True, slots=True)
class View:
    """What the node holds of the chain.

    Everything up to `base` is settled: folded into lease rows, its events forgotten. Above it every block is held by hash,
    and every event by its block's hash, so a reorg is undone by forgetting blocks.
    """

    base: BlockRef
    blocks: tuple[BlockRef, ...] = ()
    """`base.number + 1` up to the tip, without gaps, each the parent of the next."""
    safe: BlockNumber = BEFORE_ANY
    finalized: BlockNumber = BEFORE_ANY

    @property
    def tip(self) -> BlockRef:
        """The last block processed."""
        return self.blocks[-1] if self.blocks else self.base

    def at(self, number: int) -> BlockRef | None:
        """The block held at a height, or None below the base and above the tip."""
        offset = number - self.base.number
        if offset == 0:
            return self.base
        return self.blocks[offset - 1] if 0 < offset <= len(self.blocks) else None


@dataclass(frozen=True, slots=True)
class Step:
    """One move of the view, made durable in one transaction: undo, append, settle, in this order."""

    undo_to: BlockRef | None = None
    """Forget everything above this block first (a reorg)."""
    blocks: tuple[BlockRef, ...] = ()
    events: tuple[SeenEvent, ...] = ()
    settle_to: BlockRef | None = None
    """Fold everything up to this block into lease rows and hold its blocks no longer."""
    safe: BlockNumber = BEFORE_ANY
    finalized: BlockNumber = BEFORE_ANY

    def moves(self, view: View) -> View:
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
        return View(base, blocks, BlockNumber(max(safe, self.safe)), BlockNumber(max(view.finalized, self.finalized)))


_NO_TIME: Final = Timestamp(0)


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as rows hold it: the fold, and the transaction to prove its approval by."""

    lease: Lease
    approved_tx: Hash32 | None = None
    seen_at: Timestamp = _NO_TIME
    """Timestamp of a block at or after its creation: what pruning measures by."""


def fold(held: Held | None, seen: SeenEvent, key: LeaseKey, at: Timestamp) -> Held | None:
    """Fold one event into what is held; None: it belongs to a lease whose creation was not seen.

    This is `domain.lease.apply` and the approving transaction. `Folding` does the same to many events, faster.
    """
    lease = apply(None if held is None else held.lease, seen.event, key, seen.block)
    if lease is None:
        return None
    if held is None:
        return Held(lease, None, at)
    if type(seen.event) is LeaseApproved and held.approved_tx is None:
        return replace(held, lease=lease, approved_tx=seen.transaction)
    if lease is held.lease:
        return held
    return Held(lease, held.approved_tx, held.seen_at)


class Folding:
    """A lease while events are folded into it: `fold`, without a frozen copy per event. Tests hold the two against each other."""

    __slots__ = ("_key", "approved_tx", "committed", "created", "facts", "resolved_for_spender", "seen_at", "status", "terms")

    def __init__(self, created: LeaseCreated, block: BlockNumber, key: LeaseKey, at: Timestamp) -> None:
        """A lease just created."""
        self._key = key
        self.created: tuple[Any, ...] = (created.spender, created.earner, created.price, block)
        self.status = _CREATED
        self.terms: tuple[Any, ...] = (None, None, 1)
        self.committed: frozenset[ComputationId] = NONE_COMMITTED
        self.facts: list[BlockNumber | None] = [None] * len(FACTS)
        self.resolved_for_spender: bool | None = None
        self.approved_tx: Hash32 | None = None
        self.seen_at = at

    @classmethod
    def of(cls, held: Held) -> Folding:
        """Go on from what is held."""
        lease = held.lease
        self = cls.__new__(cls)
        self._key = lease.key
        self.created = (lease.spender, lease.earner, lease.price, lease.created_block)
        self.status = _STATUS_CODE[lease.status]
        self.terms = (lease.data_product_id, lease.expires_at, lease.max_computations)
        self.committed = lease.committed
        self.facts = [getattr(lease, fact) for fact in FACTS]
        self.resolved_for_spender = lease.resolved_for_spender
        self.approved_tx = held.approved_tx
        self.seen_at = held.seen_at
        return self

    def add(self, seen: SeenEvent) -> None:
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
            if self.facts[_RESOLVED] is None:
                self.facts[_RESOLVED] = seen.block
                self.resolved_for_spender = event.is_dispute_valid
                self.status = (_RESOLVE_VALID if event.is_dispute_valid else _RESOLVE_INVALID)[self.status]
        elif kind is not LeaseCreated:
            place, leads = _PLACES[kind]
            if self.facts[place] is None:
                self.facts[place] = seen.block
            self.status = leads[self.status]
            if kind is LeaseApproved and self.approved_tx is None:
                self.approved_tx = seen.transaction

    def held(self) -> Held:
        """What it came to."""
        spender, earner, price, block = self.created
        product, expires_at, most = self.terms
        approved, executed, cancelled, finalized, disputed, resolved = self.facts
        lease = Lease(
            self._key,
            spender,
            earner,
            price,
            block,
            _STATUSES[self.status],
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
        return Held(lease, self.approved_tx, self.seen_at)


FACTS: Final = ("approved_block", "executed_block", "cancelled_block", "finalized_block", "disputed_block", "resolved_block")
"""The blocks that first showed each fact, in the order of `Lease`'s fields."""
_RESOLVED: Final = FACTS.index("resolved_block")
NONE_COMMITTED: Final[frozenset[ComputationId]] = frozenset()
_STATUSES: Final = tuple(LeaseStatus)
_STATUS_CODE: Final = {status: code for code, status in enumerate(_STATUSES)}
_CREATED: Final = _STATUS_CODE[LeaseStatus.CREATED]


def _leads(move: Move) -> tuple[int, ...]:
    """`next_status` of a move from every status, by code: an enum hashes itself in Python, a number does not."""
    return tuple(_STATUS_CODE[next_status(status, move)] for status in _STATUSES)


_COMMIT: Final = _leads(Move.COMMIT)
_RESOLVE_VALID: Final = _leads(Move.RESOLVE_VALID)
_RESOLVE_INVALID: Final = _leads(Move.RESOLVE_INVALID)
_PLACES: Final[dict[type[Any], tuple[int, tuple[int, ...]]]] = {
    LeaseApproved: (0, _leads(Move.APPROVE)),
    LeaseExecuted: (1, _leads(Move.EXECUTE)),
    LeaseCancelled: (2, _leads(Move.CANCEL)),
    LeaseFinalized: (3, _leads(Move.FINALIZE)),
    DisputeRaised: (4, _leads(Move.DISPUTE)),
}
