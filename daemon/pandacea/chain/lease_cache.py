"""The lease book in memory: packed rows, O(1) answers, changed only by what is durable.

A hundred thousand leases are 30 MB. Those that nobody approved are not here: spam stays in the database, where it is pruned.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import structlog

from pandacea.chain.lease_cache_rows import LeasePacker, is_worth_proving, packed_spender
from pandacea.domain.access import CLOCK_SKEW_SECONDS, CachedLease, ChainStatus
from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.chain_view import ChainView
from pandacea.domain.ids import HASH32, Address, BlockNumber, LeaseId, Timestamp
from pandacea.domain.printable import printable
from pandacea.flows.chain_store import ApprovedLease
from pandacea.flows.follow import LeaseChange

log = structlog.get_logger(__name__)

_UNREADABLE: Final = (ValueError, KeyError, TypeError, IndexError, struct.error)
"""What packing a row raises whose columns are not what this version writes."""

MAX_NAMED_CHANGES: Final = 256
"""Changed leases beyond which callbacks are told None: any of them."""


class ConfidenceKind(StrEnum):
    """What an approval must have behind it before it counts."""

    SAFE = "safe"
    FINALIZED = "finalized"
    CONFIRMATIONS = "confirmations"


@dataclass(frozen=True, slots=True)
class Confidence:
    """`confirmations`: blocks on top of the approval's; 0 only on development chains."""

    kind: ConfidenceKind = ConfidenceKind.SAFE
    confirmations: int = 0


DEFAULT_CONFIDENCE: Final = Confidence()


class Clock(Protocol):
    def now(self) -> float: ...


class InMemoryLeaseCache:
    """Implements `flows.ports.LeaseCache`."""

    def __init__(
        self,
        clock: Clock,
        confidence: Confidence,
        *,
        max_head_age: float = 300.0,
        max_silence: float = 60.0,
        max_behind: int = 8,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Seconds and blocks after which the node no longer believes itself.

        Args:
            clock: own time.
            confidence: when approvals count.
            max_head_age: oldest timestamp of the newest block, in seconds; 0: any (a development chain that mines on demand).
            max_silence: longest time without an answer from any endpoint.
            max_behind: blocks by which the node may lag behind the head it has heard of.
            monotonic: a clock that never jumps.
        """
        self._clock = clock
        self._confidence = confidence
        self._max_head_age = max_head_age
        self._max_silence = max_silence
        self._max_behind = max_behind
        self._monotonic = monotonic
        self._leases: dict[bytes, bytes] = {}
        self._spenders: dict[bytes, int] = {}
        self._packer = LeasePacker()
        self._callbacks: list[Callable[[LeaseId | None], None]] = []
        self.on_leases_changed: Callable[[frozenset[LeaseId]], None] = lambda _leases: None
        """Told first, with all leases of one change (the queue of proofs)."""
        self._contested: dict[str, frozenset[LeaseId]] = {}
        self._latest_clock = 0.0
        self.chain_view: ChainView | None = None
        self.known_head = -1
        """The highest block number any endpoint has told."""
        self.last_answer_at = float("-inf")
        """`monotonic()` of the last answer."""
        self.contradictions: dict[str, str] = {}
        """Endpoint -> how it contradicts what was final."""
        self.not_ready_reason: str | None = "it has not read the chain yet."
        """Why nothing may be believed at all (starting, or the database is down)."""
        self.request_proof: Callable[[LeaseId], None] | None = None
        """Told when somebody asks for a lease whose approval is not proved yet."""

    # -- answers

    def find_lease(self, lease_id: LeaseId) -> CachedLease | None:
        """See `LeaseCache`."""
        known = self.peek(lease_id)
        if (
            known is not None
            and self.request_proof is not None
            and known.proof_status in {ProofStatus.PENDING, ProofStatus.UNPROVEN}
        ):
            self.request_proof(lease_id)
        return known

    def peek(self, lease_id: LeaseId) -> CachedLease | None:
        """The same without asking for a proof."""
        try:
            packed = self._leases.get(bytes.fromhex(lease_id[2:]))
        except ValueError:
            return None
        if packed is None:
            return None
        return self._packer.unpack(lease_id, packed, contested=any(lease_id in doubted for doubted in self._contested.values()))

    def knows_spender(self, address: Address) -> bool:
        """See `LeaseCache`."""
        try:
            return bytes.fromhex(address[2:]) in self._spenders
        except ValueError:
            return False

    def chain_status(self) -> ChainStatus:
        """See `LeaseCache`."""
        view = self.chain_view
        if view is None:
            return ChainStatus(
                BlockNumber(-1), Timestamp(0), BlockNumber(-1), self.not_ready_reason or "it has not read the chain yet."
            )
        tip = view.tip
        return ChainStatus(tip.number, tip.timestamp, self._confident(view), self._distrust(view), 5)

    def subscribe(self, callback: Callable[[LeaseId | None], None]) -> Callable[[], None]:
        """See `LeaseCache`."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def __len__(self) -> int:
        return len(self._leases)

    def list_ids(self) -> list[LeaseId]:
        """Every lease in memory."""
        return [LeaseId("0x" + key.hex()) for key in self._leases]

    def list_worth_proving(self, now: float) -> list[LeaseId]:
        """Leases that could be used if their approval were proved."""
        return [LeaseId("0x" + key.hex()) for key, packed in self._leases.items() if is_worth_proving(packed, now)]

    def is_worth_proving(self, lease_id: LeaseId, now: float) -> bool:
        """Whether a lease could be used if its approval were proved."""
        packed = self._leases.get(bytes.fromhex(lease_id[2:]))
        return packed is not None and is_worth_proving(packed, now)

    def _confident(self, view: ChainView) -> BlockNumber:
        match self._confidence.kind:
            case ConfidenceKind.SAFE:
                number = max(view.safe, view.finalized)
            case ConfidenceKind.FINALIZED:
                number = view.finalized
            case ConfidenceKind.CONFIRMATIONS:
                number = BlockNumber(view.tip.number - self._confidence.confirmations)
        return BlockNumber(min(number, view.tip.number))

    def _distrust(self, view: ChainView) -> str | None:
        now = self._clock.now()
        self._latest_clock = max(self._latest_clock, now)
        if self.not_ready_reason is not None:
            return self.not_ready_reason
        if self.contradictions:
            return "an endpoint contradicts what was final: " + "; ".join(self.contradictions.values())
        if self.known_head - view.tip.number > self._max_behind:
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
        """Take over a view and the leases that changed with it. Nothing in here awaits: readers see before or after."""
        pack, put = self._packer.pack, self._put
        for change in changes:
            held = change.record
            key = _key(change.lease_id)
            if key is None:
                continue
            if held is None or held.fact_blocks[0] is None:
                self._drop(key)
                continue
            try:
                put(key, pack(held, change.proof_status))
            except _UNREADABLE as problem:
                self._drop(key)
                _skipped(change.lease_id, problem)
        self.chain_view = view
        if changes:
            self.notify_changed(frozenset(change.lease_id for change in changes))

    def load_rows(self, rows: Sequence[ApprovedLease]) -> None:
        """Fill from settled leases; `apply_changes` follows for what lies above the base.

        A row that cannot be read (an earlier version kept whatever an endpoint sent) is skipped and named: it opens nothing, and the
        others must be served.
        """
        pack, put = self._packer.pack_row, self._put
        for row in rows:
            key = _key(row.lease_id)
            if key is None:
                continue
            try:
                put(key, pack(row))
            except _UNREADABLE as problem:
                _skipped(row.lease_id, problem)

    def clear(self) -> None:
        """Forget everything: what follows is a reload from the database."""
        self._leases.clear()
        self._spenders.clear()

    def set_contested(self, endpoint: str, leases: Iterable[LeaseId]) -> None:
        """Another endpoint shows these leases, and no others, as cancelled or disputed, where the one followed does not."""
        before = self._contested.get(endpoint, frozenset())
        after = frozenset(leases)
        if after:
            self._contested[endpoint] = after
        else:
            self._contested.pop(endpoint, None)
        if before != after:
            log.warning("chain.doubt", endpoint=endpoint, leases=sorted(after), no_longer=sorted(before - after))
            self.notify_changed(before ^ after)

    def record_head(self, head: int) -> None:
        """An endpoint answered, and this is its head."""
        self.last_answer_at = self._monotonic()
        self.known_head = head

    def notify_changed(self, leases: frozenset[LeaseId]) -> None:
        """Call back whoever wants to know; of a large change (catching up) only that there was one."""
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
    """The id as memory keeps it; None, with an alarm, for one that is none."""
    if HASH32.fullmatch(lease_id) is not None:
        return bytes.fromhex(lease_id[2:])
    _skipped(lease_id, ValueError("the id is not 0x and 64 hex digits"))
    return None


def _skipped(lease_id: str, problem: Exception) -> None:
    log.error(
        "lease.unreadable",
        lease_id=printable(str(lease_id), limit=80),
        because=f"{type(problem).__name__}: {problem}"[:200],
        what_to_do="The database holds a lease that no chain can show; it is served to nobody. An RPC endpoint sent it: change endpoints.",
    )
