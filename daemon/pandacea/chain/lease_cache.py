"""The lease cache: approved leases in memory as packed rows, answers in O(1), changed only after a commit.

A hundred thousand leases take 30 MB. Leases that nobody approved are not here: they stay in the database, where they are pruned.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import structlog

from pandacea.chain.confidence import Confidence, ConfidenceKind
from pandacea.chain.lease_cache_rows import LeasePacker, is_worth_proving, packed_spender
from pandacea.domain.access import CLOCK_SKEW_SECONDS, CachedLease, ChainStatus
from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.chain_view import BEFORE_GENESIS, BlockRef, ChainView
from pandacea.domain.ids import HASH32, Address, BlockNumber, LeaseId, Timestamp
from pandacea.domain.printable import printable
from pandacea.flows.following.chain_store import ApprovedLease
from pandacea.flows.following.follow import LeaseChange
from pandacea.flows.ports import Clock

log = structlog.get_logger(__name__)

_ROW_ERRORS: Final = (ValueError, KeyError, TypeError, IndexError, struct.error)
"""Raised by packing a row that another version wrote with other values."""

MAX_NAMED_CHANGES: Final = 256
"""Above as many changed leases, callbacks get None once instead of each lease."""


MAX_BEHIND_BLOCKS: Final = 8
MAX_BEHIND_SECONDS: Final = 15.0
"""A node is behind when both are exceeded: eight blocks are two seconds on one chain and a minute and a half on another, and one block
after a long pause is no lag."""


class InMemoryLeaseCache:
    """Answers about leases from memory. Implements `flows.ports.LeaseCache`."""

    def __init__(
        self,
        clock: Clock,
        confidence: Confidence,
        *,
        max_head_age: float = 300.0,
        max_silence: float = 60.0,
        max_behind: int = MAX_BEHIND_BLOCKS,
        max_behind_seconds: float = MAX_BEHIND_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set when approvals count, and when the node is no longer ready.

        Args:
            clock: the machine's time.
            confidence: when approvals count.
            max_head_age: greatest age of the newest block, in seconds; 0: any (a development chain that mines on demand).
            max_silence: longest time without an answer from any endpoint, in seconds.
            max_behind: blocks by which the node may lag behind the known head, however long they took.
            max_behind_seconds: seconds of the chain's time by which it may, in however many blocks.
            monotonic: a clock that never jumps, in seconds.
        """
        self._clock = clock
        self._confidence = confidence
        self._max_head_age = max_head_age
        self._max_silence = max_silence
        self._max_behind = max_behind
        self._max_behind_seconds = max_behind_seconds
        self._monotonic = monotonic
        self._leases: dict[bytes, bytes] = {}
        self._spenders: dict[bytes, int] = {}
        self._packer = LeasePacker()
        self._callbacks: list[Callable[[LeaseId | None], None]] = []
        self.on_leases_changed: Callable[[frozenset[LeaseId]], None] = lambda _leases: None
        """Called before the callbacks, with all leases of one change (the queue of proofs)."""
        self._contested: dict[str, frozenset[LeaseId]] = {}
        self._latest_clock = 0.0
        self.chain_view: ChainView | None = None
        self.known_head = -1
        """The block number of the head that the followed endpoint showed last; -1: none."""
        self._known_head_timestamp = 0
        self.last_answer_at = float("-inf")
        """`monotonic()` of the last answer."""
        self.contradictions: dict[str, str] = {}
        """Endpoint -> how it contradicts a final block."""
        self.not_ready_reason: str | None = "it has not read the chain yet."
        """Why no answer may be given at all (the node starts, or the database is down); None: no such reason."""
        self.no_confidence_reason: str | None = None
        """Why no approval will ever count with the configured confidence, and what to set; None: some will."""
        self.request_proof: Callable[[LeaseId], None] | None = None
        """Called when somebody asks for a lease whose approval is not proved yet."""

    # -- answers

    def find_lease(self, lease_id: LeaseId) -> CachedLease | None:
        """Find a lease, and ask for the proof of its approval where it is missing."""
        known = self.peek(lease_id)
        if (
            known is not None
            and self.request_proof is not None
            and known.proof_status in {ProofStatus.PENDING, ProofStatus.UNPROVEN}
        ):
            self.request_proof(lease_id)
        return known

    def peek(self, lease_id: LeaseId) -> CachedLease | None:
        """Find a lease without asking for a proof."""
        try:
            packed = self._leases.get(bytes.fromhex(lease_id[2:]))
        except ValueError:
            return None
        if packed is None:
            return None
        return self._packer.unpack(lease_id, packed, contested=any(lease_id in leases for leases in self._contested.values()))

    def knows_spender(self, address: Address) -> bool:
        """Whether an approved lease of this Earner has this Spender."""
        try:
            return bytes.fromhex(address[2:]) in self._spenders
        except ValueError:
            return False

    def chain_status(self) -> ChainStatus:
        """Return what the node knows of the chain, and whether it is ready."""
        view = self.chain_view
        if view is None:
            return ChainStatus(
                BEFORE_GENESIS, Timestamp(0), BEFORE_GENESIS, self.not_ready_reason or "it has not read the chain yet."
            )
        tip = view.tip
        reason = self._why_not_ready(view)
        confident = self._confident_block(view)
        return ChainStatus(tip.number, tip.timestamp, confident, reason, 5, self.no_confidence_reason if confident < 0 else None)

    def subscribe(self, callback: Callable[[LeaseId | None], None]) -> Callable[[], None]:
        """Call back after each change; return how to stop it."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def __len__(self) -> int:
        return len(self._leases)

    def list_ids(self) -> list[LeaseId]:
        """List every lease in memory."""
        return [LeaseId("0x" + key.hex()) for key in self._leases]

    def list_worth_proving(self, now: float) -> list[LeaseId]:
        """List the leases that could be used if their approval were proved."""
        return [LeaseId("0x" + key.hex()) for key, packed in self._leases.items() if is_worth_proving(packed, now)]

    def is_worth_proving(self, lease_id: LeaseId, now: float) -> bool:
        """Whether a lease could be used if its approval were proved."""
        packed = self._leases.get(bytes.fromhex(lease_id[2:]))
        return packed is not None and is_worth_proving(packed, now)

    def _confident_block(self, view: ChainView) -> BlockNumber:
        match self._confidence.kind:
            case ConfidenceKind.SAFE:
                number = max(view.safe, view.finalized)
            case ConfidenceKind.FINALIZED:
                number = view.finalized
            case ConfidenceKind.CONFIRMATIONS:
                number = BlockNumber(view.tip.number - self._confidence.confirmations)
        return BlockNumber(min(number, view.tip.number))

    def _why_not_ready(self, view: ChainView) -> str | None:
        now = self._clock.now()
        self._latest_clock = max(self._latest_clock, now)
        if self.contradictions:  # before any other reason: only the operator can end it
            return "an endpoint contradicts what was final: " + " ".join(self.contradictions.values())
        if self.not_ready_reason is not None:
            return self.not_ready_reason
        late = self._known_head_timestamp - view.tip.timestamp > self._max_behind_seconds
        if late and self.known_head - view.tip.number > self._max_behind:
            return f"it is reading block {view.tip.number} of {self.known_head}."
        if self._monotonic() - self.last_answer_at > self._max_silence:
            return f"no chain endpoint has answered for {self._max_silence:.0f} s."
        if self._latest_clock - now > CLOCK_SKEW_SECONDS:
            return "its own clock went backwards."
        if view.tip.timestamp > now + CLOCK_SKEW_SECONDS:
            return "the chain's newest block lies in the future of its clock."
        if self._max_head_age and now - view.tip.timestamp > self._max_head_age:
            return f"the newest block it knows is {now - view.tip.timestamp:.0f} s old."
        return None

    # -- changes

    def apply_changes(self, view: ChainView, changes: Sequence[LeaseChange]) -> None:
        """Replace the view and the leases that changed with it. It does not await, so readers see the state before or after."""
        pack, put = self._packer.pack, self._put
        for change in changes:
            record = change.record
            key = _key(change.lease_id)
            if key is None:
                continue
            if record is None or record.fact_blocks[0] is None:
                self._drop(key)
                continue
            try:
                put(key, pack(record, change.proof_status))
            except _ROW_ERRORS as error:
                self._drop(key)
                _log_unreadable(change.lease_id, error)
        self.chain_view = view
        if changes:
            self.notify_changed(frozenset(change.lease_id for change in changes))

    def load_rows(self, rows: Sequence[ApprovedLease]) -> None:
        """Load the settled rows of approved leases; `apply_changes` follows for what lies above the base.

        A row that cannot be read (an earlier version kept whatever an endpoint sent) is logged and skipped, so that the others are served.
        """
        pack, put = self._packer.pack_row, self._put
        for row in rows:
            key = _key(row.lease_id)
            if key is None:
                continue
            try:
                put(key, pack(row))
            except _ROW_ERRORS as error:
                _log_unreadable(row.lease_id, error)

    def clear(self) -> None:
        """Remove every lease, before a reload from the database."""
        self._leases.clear()
        self._spenders.clear()

    def set_contested(self, endpoint: str, leases: Iterable[LeaseId]) -> None:
        """Set the leases that an endpoint shows as cancelled or disputed and the followed one does not; an empty set withdraws all."""
        before = self._contested.get(endpoint, frozenset())
        after = frozenset(leases)
        if after:
            self._contested[endpoint] = after
        else:
            self._contested.pop(endpoint, None)
        if before != after:
            log.warning("chain.leases_contested", endpoint=endpoint, leases=sorted(after), no_longer=sorted(before - after))
            self.notify_changed(before ^ after)

    def list_contested(self) -> frozenset[LeaseId]:
        """List the leases that some endpoint, or the v0 contract itself, shows as denied while the followed endpoint does not."""
        return frozenset().union(*self._contested.values())

    def record_head(self, head: BlockRef) -> None:
        """Note that the followed endpoint answered, and its head."""
        self.last_answer_at = self._monotonic()
        self.known_head, self._known_head_timestamp = head.number, head.timestamp

    def notify_changed(self, leases: frozenset[LeaseId]) -> None:
        """Call the subscribers: with each changed lease, or once with None for a large change (catching up)."""
        self.on_leases_changed(leases)
        for callback in tuple(self._callbacks):
            if len(leases) > MAX_NAMED_CHANGES:
                callback(None)
            else:
                for lease_id in leases:
                    callback(lease_id)

    # -- rows and their Spenders

    def _put(self, key: bytes, packed: bytes) -> None:
        old = self._leases.get(key)
        if old is not None:
            self._forget_spender(packed_spender(old))
        self._leases[key] = packed
        spender = packed_spender(packed)
        self._spenders[spender] = self._spenders.get(spender, 0) + 1

    def _drop(self, key: bytes) -> None:
        old = self._leases.pop(key, None)
        if old is not None:
            self._forget_spender(packed_spender(old))

    def _forget_spender(self, spender: bytes) -> None:
        left = self._spenders[spender] - 1
        if left:
            self._spenders[spender] = left
        else:
            del self._spenders[spender]


def _key(lease_id: str) -> bytes | None:
    """Convert an id to the cache's key; log a malformed one and return None."""
    if HASH32.fullmatch(lease_id) is not None:
        return bytes.fromhex(lease_id[2:])
    _log_unreadable(lease_id, ValueError("the id is not 0x and 64 hex digits"))
    return None


def _log_unreadable(lease_id: str, error: Exception) -> None:
    log.error(
        "lease.row_unreadable",
        lease_id=printable(str(lease_id), limit=80),
        reason=f"{type(error).__name__}: {error}"[:200],
        remedy="The database holds a lease that no chain can show; it is served to nobody. An RPC endpoint sent it: change endpoints.",
    )
