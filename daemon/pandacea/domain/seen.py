"""What the follower saw: blocks by hash, events by place, and the step that takes the node from one view to the next."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from pandacea.domain.ids import BlockNumber, Hash32, LeaseId, LeaseKey, Timestamp
from pandacea.domain.lease import Lease, LeaseApproved, LeaseEvent, apply

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


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """One event and where it stands. A log that says two things (v0) becomes two parts."""

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
    """Fold one event into what is held; None: it belongs to a lease whose creation was not seen."""
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


def lease_of(seen: SeenEvent) -> LeaseId:
    """The lease an event belongs to."""
    return seen.event.lease_id
