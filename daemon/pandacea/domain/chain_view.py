"""What the follower has read of the chain: blocks by hash, events by position, and the update that leads from one view to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from pandacea.domain.ids import BlockNumber, Hash32, Timestamp
from pandacea.domain.lease import (
    LeaseEvent,
)

BEFORE_GENESIS: Final = BlockNumber(-1)
"""A block number below every block's."""

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
    """One event of a lease and its position on the chain. A log that states two events (v0) becomes two parts.

    It is a tuple because they come by the hundred thousand.
    """

    block: BlockNumber
    block_hash: Hash32
    log_index: int
    transaction: Hash32
    event: LeaseEvent
    part: int = 0

    @property
    def position(self) -> tuple[BlockNumber, int, int]:
        """The key that orders events as they happened."""
        return (self.block, self.log_index, self.part)

    @property
    def identity(self) -> tuple[Hash32, int, int]:
        """The key of one log: the same when it is read twice, another when it is in another block."""
        return (self.block_hash, self.log_index, self.part)


@dataclass(frozen=True, slots=True)
class ChainView:
    """The part of the chain that the node holds.

    Everything up to `base` is settled: folded into lease rows, its events deleted. Above it every block is held by its hash, and every
    event by its block's hash, so a reorg is undone by deleting blocks.
    """

    base: BlockRef
    blocks: tuple[BlockRef, ...] = ()
    """`base.number + 1` up to the tip, without gaps, each the parent of the next."""
    safe: BlockNumber = BEFORE_GENESIS
    finalized: BlockNumber = BEFORE_GENESIS

    @property
    def tip(self) -> BlockRef:
        """The newest block of the view."""
        return self.blocks[-1] if self.blocks else self.base

    def block_at(self, number: int) -> BlockRef | None:
        """Return the block at a height; None below the base and above the tip."""
        offset = number - self.base.number
        if offset == 0:
            return self.base
        return self.blocks[offset - 1] if 0 < offset <= len(self.blocks) else None


@dataclass(frozen=True, slots=True)
class ChainUpdate:
    """One change of the view, made durable in one transaction: undo, append, settle, in this order."""

    undo_to: BlockRef | None = None
    """Delete everything above this block first (a reorg)."""
    blocks: tuple[BlockRef, ...] = ()
    events: tuple[ChainEvent, ...] = ()
    settle_to: BlockRef | None = None
    """Fold everything up to this block into lease rows and delete its blocks and events."""
    safe: BlockNumber = BEFORE_GENESIS
    finalized: BlockNumber = BEFORE_GENESIS

    def apply_to(self, view: ChainView) -> ChainView:
        """Return the view after this update."""
        blocks = view.blocks
        base = view.base
        if self.undo_to is not None:
            blocks = blocks[: max(0, self.undo_to.number - base.number)]
        blocks += self.blocks
        if self.settle_to is not None:
            blocks = blocks[max(0, self.settle_to.number - base.number) :]
            base = self.settle_to
        # A lagging endpoint may report earlier numbers; what was final stays final. A reorg takes `safe` back with it.
        safe = view.safe if self.undo_to is None else min(view.safe, self.undo_to.number)
        return ChainView(base, blocks, BlockNumber(max(safe, self.safe)), BlockNumber(max(view.finalized, self.finalized)))
