"""The fold of a lease: the table is the law, odd histories are recorded and never raise."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea.domain.ids import Address, BlockNumber, ComputationId, Hash32, LeaseId, LeaseKey, Timestamp, Wei
from pandacea.domain.lease import (
    FINAL_STATUSES,
    LEASE_TRANSITIONS,
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
from tests.lease_fold import apply_event

LEASE = LeaseId("0x" + "1a" * 32)
KEY = LeaseKey(31337, Address("0x" + "cc" * 20), LEASE)
SPENDER, EARNER = Address("0x" + "aa" * 20), Address("0x" + "bb" * 20)
PRODUCT = Hash32("0x" + "22" * 32)
CREATED = LeaseCreated(LEASE, SPENDER, EARNER, Wei(1000))
TERMS = LeaseTerms(LEASE, PRODUCT, Timestamp(2_000_000_000), 3)


def computation(n: int) -> ComputationId:
    return ComputationId(f"0x{n:064x}")


def committed(n: int) -> ResultCommitted:
    return ResultCommitted(LEASE, computation(n), Hash32("0x" + "ee" * 32))


APPROVED, EXECUTED, CANCELLED = LeaseApproved(LEASE), LeaseExecuted(LEASE), LeaseCancelled(LEASE)
FINALIZED = LeaseFinalized(LEASE, EARNER, 0)
DISPUTED = DisputeRaised(LEASE, SPENDER, EARNER, "no rows", Wei(100))
VALID, INVALID = DisputeResolved(LEASE, True, Wei(100)), DisputeResolved(LEASE, False, Wei(100))
EVENTS: tuple[LeaseEvent, ...] = (CREATED, TERMS, APPROVED, committed(1), EXECUTED, CANCELLED, FINALIZED, DISPUTED, VALID, INVALID)


def fold(*events: LeaseEvent, start: Lease | None = None) -> Lease | None:
    """Fold events, the n-th seen in block 100 + n."""
    lease = start
    for n, event in enumerate(events):
        lease = apply_event(lease, event, KEY, BlockNumber(100 + n))
    return lease


def known(*events: LeaseEvent) -> Lease:
    lease = fold(CREATED, *events)
    assert lease is not None
    return lease


def test_a_paid_lease_goes_from_created_to_finalized() -> None:
    """Each fact keeps the block it appeared in, and the terms are those of LeaseTerms."""
    assert fold(CREATED, TERMS, APPROVED, committed(1), committed(2), EXECUTED, FINALIZED) == Lease(
        key=KEY,
        spender=SPENDER,
        earner=EARNER,
        price=Wei(1000),
        created_block=BlockNumber(100),
        status=LeaseStatus.FINALIZED,
        data_product_id=PRODUCT,
        expires_at=Timestamp(2_000_000_000),
        max_computations=3,
        committed=frozenset({computation(1), computation(2)}),
        approved_block=BlockNumber(102),
        executed_block=BlockNumber(105),
        finalized_block=BlockNumber(106),
    )


@pytest.mark.parametrize(
    ("verdict", "status", "for_spender"),
    [(VALID, LeaseStatus.REFUNDED, True), (INVALID, LeaseStatus.SETTLED, False)],
)
def test_a_dispute_ends_for_one_side(verdict: DisputeResolved, status: LeaseStatus, for_spender: bool) -> None:
    """While open it denies; its end says for whom it was decided."""
    assert known(APPROVED, DISPUTED).in_dispute
    lease = known(APPROVED, DISPUTED, verdict)
    assert (lease.status, lease.in_dispute, lease.resolved_for_spender) == (status, False, for_spender)
    assert (lease.disputed_block, lease.resolved_block) == (102, 103)


def test_two_contradicting_receipts_refund_without_a_dispute() -> None:
    """A resolution for the Spender counts though no dispute was raised."""
    assert known(APPROVED, VALID).status is LeaseStatus.REFUNDED


def test_a_cancelled_dispute_is_closed() -> None:
    """The Earner may give in: nothing stays open."""
    lease = known(APPROVED, DISPUTED, CANCELLED)
    assert (lease.status, lease.in_dispute) == (LeaseStatus.CANCELLED, False)


def test_v0_has_no_terms() -> None:
    """No LeaseTerms: no product until storage is read, no expiry, one computation."""
    lease = known(APPROVED)
    assert (lease.data_product_id, lease.expires_at, lease.max_computations) == (None, None, 1)


def test_executed_before_approved_is_recorded_and_never_usable() -> None:
    """On v0 anyone may execute: the later approval is recorded but does not bring the lease back."""
    lease = known(EXECUTED, APPROVED)
    assert (lease.status, lease.executed_block, lease.approved_block) == (LeaseStatus.EXECUTED, 101, 102)


@pytest.mark.parametrize("event", [e for e in EVENTS if not isinstance(e, LeaseCreated)])
def test_an_event_of_a_lease_whose_creation_was_not_seen_is_nobodys(event: LeaseEvent) -> None:
    """Nothing is invented: no Spender, no price, no lease."""
    assert fold(event) is None


def test_an_approval_counts_from_its_own_block() -> None:
    """Asked at block N: true from the approval's block on, false before it and without it."""
    lease = known(TERMS, APPROVED)
    assert [lease.approved_block is not None and lease.approved_block <= b for b in (101, 102, 103)] == [False, True, True]
    assert known().approved_block is None


@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_folding_a_range_twice_changes_nothing(events: list[LeaseEvent]) -> None:
    """Total and idempotent on any history that begins with the creation, however odd the rest."""
    once = known(*events)
    assert fold(CREATED, *events, start=once) == once


@given(st.lists(st.sampled_from(EVENTS), max_size=8), st.lists(st.sampled_from(EVENTS), max_size=8))
def test_a_status_never_goes_back_and_a_final_one_never_changes(before: list[LeaseEvent], after: list[LeaseEvent]) -> None:
    """Statuses are in order of time; the four final ones hold."""
    order = list(LeaseStatus)
    first, last = known(*before), known(*before, *after)
    assert order.index(last.status) >= order.index(first.status)
    if first.status in FINAL_STATUSES:
        assert last.status is first.status


@pytest.mark.parametrize(("status", "move"), list(product(LeaseStatus, LeaseTransition)))
def test_every_pair_of_status_and_move_has_an_answer(status: LeaseStatus, move: LeaseTransition) -> None:
    """The fold follows the table where it speaks; no row leaves a final status."""
    assert next_status(status, move) in LeaseStatus
    if (status, move) in LEASE_TRANSITIONS:
        assert status not in FINAL_STATUSES
        assert next_status(status, move) is LEASE_TRANSITIONS[status, move]
