"""resolveDispute: the arbiter fixed at creation decides, for 30 days."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, ETHER, NO_LEASE, Agreement, Refusal

STAKE = ETHER // 10


def test_given_there_is_no_such_lease_it_reverts_with_unknown_lease(agreement: Agreement) -> None:
    """An id nobody paid for."""
    refusal = agreement.refused("resolveDispute", NO_LEASE, True, by=agreement.arbiter)
    assert refusal == Refusal("UnknownLease", {"leaseId": NO_LEASE})


@pytest.mark.parametrize("status", ["created", "approved", "executed", "finalized", "cancelled", "refunded", "settled"])
def test_given_the_lease_is_not_in_dispute_it_reverts_with_wrong_status(agreement: Agreement, status: str) -> None:
    """The arbiter has no say where nobody objects, and decides once."""
    lease = agreement.in_status(status)
    refusal = agreement.refused("resolveDispute", lease, True, by=agreement.arbiter)
    assert refusal == Refusal("WrongStatus", {"leaseId": lease, "status": status})


def test_when_the_caller_is_not_the_arbiter_it_reverts_with_not_arbiter(agreement: Agreement) -> None:
    """Not even the owner."""
    lease = agreement.disputed()
    for caller in (agreement.owner, agreement.spender, agreement.earner, agreement.stranger):
        refusal = agreement.refused("resolveDispute", lease, True, by=caller)
        assert refusal == Refusal("NotArbiter", {"leaseId": lease, "caller": caller})


def test_given_the_arbiter_was_replaced_after_creation_it_is_still_the_old_one_who_decides(agreement: Agreement) -> None:
    """The owner cannot hand a lease to another judge."""
    lease = agreement.disputed()
    agreement.send("setArbiter", agreement.other, by=agreement.owner)
    refusal = agreement.refused("resolveDispute", lease, True, by=agreement.other)
    assert refusal == Refusal("NotArbiter", {"leaseId": lease, "caller": agreement.other})
    agreement.send("resolveDispute", lease, True, by=agreement.arbiter)
    assert agreement.status(lease) == "refunded"


def test_when_30_days_have_passed_to_the_second_it_decides(agreement: Agreement) -> None:
    """The last second is included."""
    lease = agreement.disputed()
    agreement.at(agreement.lease(lease)["disputedAt"] + 30 * DAY)
    agreement.send("resolveDispute", lease, False, by=agreement.arbiter)
    assert agreement.status(lease) == "settled"


def test_when_more_than_30_days_have_passed_it_reverts_with_too_late(agreement: Agreement) -> None:
    """No race between a late verdict and the split."""
    lease = agreement.disputed()
    until = agreement.lease(lease)["disputedAt"] + 30 * DAY
    agreement.at(until + 1)
    refusal = agreement.refused("resolveDispute", lease, True, by=agreement.arbiter)
    assert refusal == Refusal("TooLate", {"leaseId": lease, "until": until})


def test_when_the_dispute_is_valid_it_credits_the_spender_with_price_and_stake_and_emits_dispute_resolved(
    agreement: Agreement,
) -> None:
    """Everything back to the Spender; the arbiter gains nothing."""
    lease = agreement.disputed()
    done = agreement.send("resolveDispute", lease, True, by=agreement.arbiter)
    assert done.events == [
        ContractEvent("Credited", {"leaseId": lease, "account": agreement.spender, "amount": ETHER + STAKE}),
        ContractEvent("DisputeResolved", {"leaseId": lease, "isDisputeValid": True, "stakeAmount": STAKE}),
    ]
    assert agreement.status(lease) == "refunded"
    credited = [agreement.credit(who) for who in (agreement.spender, agreement.earner, agreement.arbiter)]
    assert credited == [ETHER + STAKE, 0, 0]


def test_when_the_dispute_is_invalid_it_credits_the_earner_with_price_and_stake_and_emits_dispute_resolved(
    agreement: Agreement,
) -> None:
    """A groundless objection costs its stake, which pays the Earner for the wait."""
    lease = agreement.disputed()
    done = agreement.send("resolveDispute", lease, False, by=agreement.arbiter)
    assert done.events == [
        ContractEvent("Credited", {"leaseId": lease, "account": agreement.earner, "amount": ETHER + STAKE}),
        ContractEvent("DisputeResolved", {"leaseId": lease, "isDisputeValid": False, "stakeAmount": STAKE}),
    ]
    assert agreement.status(lease) == "settled"
    credited = [agreement.credit(who) for who in (agreement.spender, agreement.earner, agreement.arbiter)]
    assert credited == [0, ETHER + STAKE, 0]
