"""approveLease: who may agree, and until when."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, NO_LEASE, ZERO, Agreement, Refusal


def test_given_there_is_no_such_lease_it_reverts_with_unknown_lease(agreement: Agreement) -> None:
    """An id nobody paid for."""
    assert agreement.refused("approveLease", NO_LEASE, by=agreement.earner) == Refusal("UnknownLease", {"leaseId": NO_LEASE})


def test_given_the_contract_is_paused_it_reverts_with_enforced_pause(agreement: Agreement) -> None:
    """A pause stops approvals."""
    lease = agreement.create()
    agreement.send("pause", by=agreement.owner)
    assert agreement.refused("approveLease", lease, by=agreement.earner) == Refusal("EnforcedPause", {})


@pytest.mark.parametrize("status", ["approved", "executed", "disputed", "finalized", "cancelled", "refunded", "settled"])
def test_given_the_lease_is_not_just_created_it_reverts_with_wrong_status(agreement: Agreement, status: str) -> None:
    """Once is enough, and nothing final comes back."""
    lease = agreement.in_status(status)
    refusal = agreement.refused("approveLease", lease, by=agreement.earner)
    assert refusal == Refusal("WrongStatus", {"leaseId": lease, "status": status})


def test_when_the_caller_is_neither_earner_nor_operator_it_reverts_with_not_earner_or_operator(agreement: Agreement) -> None:
    """Not the Spender, not the arbiter, not somebody else's operator."""
    lease = agreement.create()
    agreement.send("setOperator", agreement.operator, by=agreement.other)
    for caller in (agreement.spender, agreement.arbiter, agreement.owner, agreement.operator):
        refusal = agreement.refused("approveLease", lease, by=caller)
        assert refusal == Refusal("NotEarnerOrOperator", {"leaseId": lease, "caller": caller})


def test_when_the_caller_was_replaced_as_operator_it_reverts_with_not_earner_or_operator(agreement: Agreement) -> None:
    """A key taken back opens nothing."""
    lease = agreement.create()
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    agreement.send("setOperator", ZERO, by=agreement.earner)
    refusal = agreement.refused("approveLease", lease, by=agreement.operator)
    assert refusal == Refusal("NotEarnerOrOperator", {"leaseId": lease, "caller": agreement.operator})


def test_when_7_days_have_passed_to_the_second_it_approves(agreement: Agreement) -> None:
    """The last second is included."""
    created = agreement.now
    lease = agreement.create()
    agreement.at(created + 7 * DAY)
    assert agreement.send("approveLease", lease, by=agreement.earner).timestamp == created + 7 * DAY


def test_when_more_than_7_days_have_passed_it_reverts_with_too_late(agreement: Agreement) -> None:
    """An offer does not stand for ever."""
    created = agreement.now
    lease = agreement.create()
    agreement.at(created + 7 * DAY + 1)
    refusal = agreement.refused("approveLease", lease, by=agreement.earner)
    assert refusal == Refusal("TooLate", {"leaseId": lease, "until": created + 7 * DAY})


def test_when_the_expiry_is_the_next_second_it_approves(agreement: Agreement) -> None:
    """Until the last second before the expiry."""
    expiry = agreement.now + DAY
    lease = agreement.create(expires_at=expiry)
    agreement.at(expiry - 1)
    assert agreement.send("approveLease", lease, by=agreement.earner).timestamp == expiry - 1


def test_when_the_expiry_has_come_it_reverts_with_too_late(agreement: Agreement) -> None:
    """An expired lease is not approved, though its 7 days are not over."""
    expiry = agreement.now + DAY
    lease = agreement.create(expires_at=expiry)
    agreement.at(expiry)
    refusal = agreement.refused("approveLease", lease, by=agreement.earner)
    assert refusal == Refusal("TooLate", {"leaseId": lease, "until": expiry - 1})


def test_when_the_caller_is_the_earner_it_approves_and_emits_lease_approved(agreement: Agreement) -> None:
    """One event, and the second of it is kept."""
    lease = agreement.create()
    done = agreement.send("approveLease", lease, by=agreement.earner)
    assert done.events == [ContractEvent("LeaseApproved", {"leaseId": lease})]
    found = agreement.lease(lease)
    assert (found["status"], found["isApproved"], found["approvedAt"]) == ("approved", True, done.timestamp)


def test_when_the_caller_is_the_operator_it_approves(agreement: Agreement) -> None:
    """The node's own key is enough."""
    lease = agreement.create()
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    agreement.send("approveLease", lease, by=agreement.operator)
    assert agreement.status(lease) == "approved"
