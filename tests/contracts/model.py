"""The contract once more, as plain Python: the transition table of `domain.lease`, and who may make which move when.

`Model` says for each call what the contract must answer: nothing, or the refusal it must give, in the contract's own order of
checks. It shares no code with the Solidity side; with the node it shares the table of transitions.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from pandacea.domain.lease import (
    FINAL_STATUSES,
    LEASE_TRANSITIONS,
    LeaseStatus,
    LeaseTransition,
)
from tests.contracts.agreement import Refusal

DAY: Final = 86_400
"""Seconds."""
MAX_TERM: Final = 730 * DAY
"""Seconds: the longest a lease may run."""
APPROVAL_PERIOD: Final = 7 * DAY
"""Seconds after creation during which a lease may be approved (both ends included), and only before its expiry."""
COMMIT_GRACE: Final = 1 * DAY
"""Seconds after the expiry during which results may still be committed (both ends included)."""
DISPUTE_WINDOW: Final = 7 * DAY
"""Seconds after execution during which the Spender may still raise a dispute (both ends included)."""
ARBITRATION_PERIOD: Final = 30 * DAY
"""Seconds after a dispute was raised during which its arbiter decides (both ends included); then anyone may split."""
STAKE_DIVISOR: Final = 10
"""A dispute's stake is `price // STAKE_DIVISOR`, in wei."""


@dataclass
class Held:
    """One lease, as the law sees it."""

    id: str
    spender: str
    earner: str
    arbiter: str
    price: int
    created_at: int
    expires_at: int
    max_computations: int
    status: LeaseStatus = LeaseStatus.CREATED
    approved_at: int = 0
    operator_epoch: int = 0
    executed_at: int = 0
    disputed_at: int = 0
    results: dict[str, str] = field(default_factory=dict)

    @property
    def stake(self) -> int:
        """A tenth, rounded down."""
        return self.price // STAKE_DIVISOR

    @property
    def held(self) -> int:
        """Wei the contract holds for this lease."""
        if self.status in FINAL_STATUSES:
            return 0
        return self.price + (self.stake if self.status is LeaseStatus.DISPUTED else 0)


class ModelRefusal(Exception):
    """What the contract must revert with."""

    def __init__(self, name: str, **values: object) -> None:
        super().__init__(name)
        self.refusal = Refusal(name, values)


class Model:
    """All leases and accounts. Every method takes the second it happens in and raises `ModelRefusal` where the contract reverts."""

    def __init__(self, owner: str, arbiter: str) -> None:
        self.owner, self.arbiter, self.paused = owner, arbiter, False
        self.leases: dict[str, Held] = {}
        self.credit: Counter[str] = Counter()
        self.operator: dict[str, str] = {}
        self.epoch: Counter[str] = Counter()
        self.replaced: dict[tuple[str, str], int] = {}
        """The epoch of the Earner that began when this operator was replaced last."""
        self.paid_in = 0
        self.paid_out = 0

    # ---------------------------------------------------------------------------------------------- checks

    def _lease(self, lease_id: str, move: LeaseTransition) -> Held:
        lease = self.leases.get(lease_id)
        if lease is None:
            raise ModelRefusal("UnknownLease", leaseId=lease_id)
        if (lease.status, move) not in LEASE_TRANSITIONS:
            raise ModelRefusal("WrongStatus", leaseId=lease_id, status=lease.status.value)
        return lease

    def _earner_side(self, lease: Held, by: str) -> None:
        if by not in {lease.earner, self.operator.get(lease.earner)}:
            raise ModelRefusal("NotEarnerOrOperator", leaseId=lease.id, caller=by)

    def _owner(self, by: str) -> None:
        if by != self.owner:
            raise ModelRefusal("OwnableUnauthorizedAccount", account=by)

    def _running(self) -> None:
        if self.paused:
            raise ModelRefusal("EnforcedPause")

    @staticmethod
    def _until(lease: Held, now: int, until: int) -> None:
        if now > until:
            raise ModelRefusal("TooLate", leaseId=lease.id, until=until)

    @staticmethod
    def _after(lease: Held, now: int, after: int) -> None:
        if now <= after:
            raise ModelRefusal("TooEarly", leaseId=lease.id, after_=after)

    def _end(self, lease: Held, move: LeaseTransition, **shares: int) -> None:
        assert sum(shares.values()) == lease.held
        lease.status = LEASE_TRANSITIONS[lease.status, move]
        for party, amount in shares.items():
            self.credit[getattr(lease, party)] += amount

    # ---------------------------------------------------------------------------------------------- moves

    def create(self, lease: Held) -> None:
        """The caller fills in what the contract gave: the id, and the second."""
        self.leases[lease.id] = lease
        self.paid_in += lease.price

    def may_create(self, now: int, expires_at: int, computations: int) -> None:
        """Whether these terms are accepted."""
        self._running()
        if not now < expires_at <= now + MAX_TERM:
            raise ModelRefusal("BadExpiry", expiresAt=expires_at)
        if computations == 0:
            raise ModelRefusal("NoComputations")

    def approve(self, now: int, by: str, lease_id: str) -> None:
        """Earner or operator, for a week, before the expiry."""
        self._running()
        lease = self._lease(lease_id, LeaseTransition.APPROVE)
        self._earner_side(lease, by)
        self._approve(now, lease)

    def approve_by_signature(self, now: int, signer: str, lease_id: str, deadline: int) -> None:
        """The same, by whose signature it is; whoever brings it."""
        self._running()
        lease = self._lease(lease_id, LeaseTransition.APPROVE)
        self._until(lease, now, deadline)
        if signer not in {lease.earner, self.operator.get(lease.earner)}:
            raise ModelRefusal("ApprovalNotSigned", leaseId=lease_id)
        self._approve(now, lease)

    def _approve(self, now: int, lease: Held) -> None:
        self._until(lease, now, lease.created_at + APPROVAL_PERIOD)
        self._until(lease, now, lease.expires_at - 1)
        lease.status, lease.approved_at = LEASE_TRANSITIONS[lease.status, LeaseTransition.APPROVE], now
        lease.operator_epoch = self.epoch[lease.earner]

    def commit(self, now: int, by: str, lease_id: str, computation: str, result: str) -> None:
        """Earner or operator, until a day after the expiry, once per computation."""
        lease = self._lease(lease_id, LeaseTransition.COMMIT)
        self._earner_side(lease, by)
        self._until(lease, now, lease.expires_at + COMMIT_GRACE)
        if computation in lease.results:
            raise ModelRefusal(
                "AlreadyCommitted", leaseId=lease_id, computationId=computation, resultHash=lease.results[computation]
            )
        if len(lease.results) == lease.max_computations:
            raise ModelRefusal("AllCommitted", leaseId=lease_id, maxComputations=lease.max_computations)
        lease.results[computation] = result

    def commit_each(self, now: int, by: str, batch: list[tuple[str, str, str]]) -> list[str]:
        """Each by the rules of `commit`; the names of the refusals, "" for what was committed."""
        names = []
        for one in batch:
            try:
                self.commit(now, by, *one)
            except ModelRefusal as answer:
                names.append(answer.refusal.name)
            else:
                names.append("")
        return names

    def execute(self, now: int, by: str, lease_id: str) -> None:
        """With a result; the Earner's side when nothing is left or expired, then anyone."""
        lease = self._lease(lease_id, LeaseTransition.EXECUTE)
        if not lease.results:
            raise ModelRefusal("NothingCommitted", leaseId=lease_id)
        if now <= lease.expires_at + COMMIT_GRACE:
            self._earner_side(lease, by)
            if now < lease.expires_at and len(lease.results) < lease.max_computations:
                raise ModelRefusal(
                    "ComputationsLeft", leaseId=lease_id, committed=len(lease.results), maxComputations=lease.max_computations
                )
        lease.status, lease.executed_at = LEASE_TRANSITIONS[lease.status, LeaseTransition.EXECUTE], now

    def finalize(self, now: int, by: str, lease_id: str) -> None:
        """The Spender at once, the Earner after the window."""
        lease = self._lease(lease_id, LeaseTransition.FINALIZE)
        if by != lease.spender:
            if by != lease.earner:
                raise ModelRefusal("NotParty", leaseId=lease_id, caller=by)
            self._after(lease, now, lease.executed_at + DISPUTE_WINDOW)
        self._end(lease, LeaseTransition.FINALIZE, earner=lease.held)

    def cancel(self, now: int, by: str, lease_id: str) -> None:
        """The Earner while it is not final; the Spender before approval, or when nothing came."""
        lease = self._lease(lease_id, LeaseTransition.CANCEL)
        if by != lease.earner:
            if by != lease.spender:
                raise ModelRefusal("NotParty", leaseId=lease_id, caller=by)
            if lease.status is not LeaseStatus.CREATED:
                if lease.results:
                    raise ModelRefusal("SomethingCommitted", leaseId=lease_id, committed=len(lease.results))
                self._after(lease, now, lease.expires_at + COMMIT_GRACE)
        self._end(lease, LeaseTransition.CANCEL, spender=lease.held)

    def dispute(self, now: int, by: str, lease_id: str, value: int) -> None:
        """The Spender, with the stake, until the window closes."""
        lease = self._lease(lease_id, LeaseTransition.DISPUTE)
        if by != lease.spender:
            raise ModelRefusal("NotSpender", leaseId=lease_id, caller=by)
        if lease.status is LeaseStatus.EXECUTED:
            self._until(lease, now, lease.executed_at + DISPUTE_WINDOW)
        if value != lease.stake:
            raise ModelRefusal("WrongStake", leaseId=lease_id, sent=value, stake=lease.stake)
        lease.status, lease.disputed_at = LEASE_TRANSITIONS[lease.status, LeaseTransition.DISPUTE], now
        self.paid_in += value

    def resolve(self, now: int, by: str, lease_id: str, valid: bool) -> None:
        """The lease's arbiter, for a month."""
        lease = self._open(lease_id)
        if by != lease.arbiter:
            raise ModelRefusal("NotArbiter", leaseId=lease_id, caller=by)
        self._until(lease, now, lease.disputed_at + ARBITRATION_PERIOD)
        if valid:
            self._end(lease, LeaseTransition.RESOLVE_VALID, spender=lease.held)
        else:
            self._end(lease, LeaseTransition.RESOLVE_INVALID, earner=lease.held)

    def split(self, now: int, lease_id: str) -> None:
        """Anyone, when the month is over."""
        lease = self._open(lease_id)
        self._after(lease, now, lease.disputed_at + ARBITRATION_PERIOD)
        half = lease.price // 2 if lease.results else 0  # nothing delivered, nothing paid
        self._end(lease, LeaseTransition.RESOLVE_INVALID, spender=lease.held - half, earner=half)

    def _open(self, lease_id: str) -> Held:
        lease = self._lease(lease_id, LeaseTransition.RESOLVE_INVALID)
        assert lease.status is LeaseStatus.DISPUTED, "only a dispute can be found invalid"
        return lease

    def prove(self, lease_id: str, signers: tuple[str, str], results: tuple[str, str]) -> None:
        """Anyone, with two results of one computation signed by the Earner's side."""
        lease = self._lease(lease_id, LeaseTransition.RESOLVE_VALID)
        if results[0] == results[1]:
            raise ModelRefusal("NoEquivocation")
        for signer, result in zip(signers, results, strict=True):
            replaced_in = self.replaced.get((lease.earner, signer), 0)
            if signer not in {lease.earner, self.operator.get(lease.earner)} and replaced_in <= lease.operator_epoch:
                raise ModelRefusal("NotSigned", leaseId=lease_id, resultHash=result)
        self._end(lease, LeaseTransition.RESOLVE_VALID, spender=lease.held)

    # ---------------------------------------------------------------------------------------------- accounts and owner

    def set_operator(self, by: str, operator: str | None) -> None:
        """Set the caller's own operator. Each call begins an epoch of the Earner."""
        self.epoch[by] += 1
        if by in self.operator:
            self.replaced[by, self.operator[by]] = self.epoch[by]
        if operator is None:
            self.operator.pop(by, None)
        else:
            self.operator[by] = operator

    def withdraw(self, by: str) -> int:
        """All of the caller's credit; wei."""
        amount = self.credit.pop(by, 0)
        if amount == 0:
            raise ModelRefusal("NothingToWithdraw", account=by)
        self.paid_out += amount
        return amount

    def set_arbiter(self, by: str, arbiter: str) -> None:
        """For leases to come."""
        self._owner(by)
        self.arbiter = arbiter

    def pause(self, by: str, paused: bool) -> None:
        """Pause or unpause, as the owner."""
        self._owner(by)
        if paused == self.paused:
            raise ModelRefusal("EnforcedPause" if paused else "ExpectedPause")
        self.paused = paused
