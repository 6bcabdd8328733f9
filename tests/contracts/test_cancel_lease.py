"""cancelLease: consent withdrawn, or nothing delivered; always the whole price back."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, ETHER, NO_LEASE, Agreement, Refusal

STAKE = ETHER // 10


def refunded(agreement: Agreement, lease: str, amount: int = ETHER) -> None:
    """The Spender may withdraw that much, and nobody else anything; nothing more can happen to the lease."""
    assert agreement.status(lease) == "cancelled"
    assert [agreement.credit(who) for who in (agreement.spender, agreement.earner)] == [amount, 0]
    agreement.send("withdraw", by=agreement.spender)
    assert agreement.balance() == 0


def test_given_there_is_no_such_lease_it_reverts_with_unknown_lease(agreement: Agreement) -> None:
    """An id nobody paid for."""
    assert agreement.refused("cancelLease", NO_LEASE, by=agreement.earner) == Refusal("UnknownLease", {"leaseId": NO_LEASE})


@pytest.mark.parametrize("status", ["finalized", "cancelled", "refunded", "settled"])
def test_given_the_lease_is_final_it_reverts_with_wrong_status(agreement: Agreement, status: str) -> None:
    """Money once credited is not moved again."""
    lease = agreement.in_status(status)
    for caller in (agreement.spender, agreement.earner):
        refusal = agreement.refused("cancelLease", lease, by=caller)
        assert refusal == Refusal("WrongStatus", {"leaseId": lease, "status": status})


def test_when_the_caller_is_a_stranger_or_the_operator_or_the_arbiter_or_the_owner_it_reverts_with_not_party(
    agreement: Agreement,
) -> None:
    """A stolen operator key cannot undo leases."""
    lease = agreement.approved()
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    for caller in (agreement.stranger, agreement.operator, agreement.arbiter, agreement.owner):
        refusal = agreement.refused("cancelLease", lease, by=caller)
        assert refusal == Refusal("NotParty", {"leaseId": lease, "caller": caller})


def test_when_the_caller_is_the_spender_given_the_lease_is_not_approved_it_refunds_the_price_and_emits_lease_cancelled(
    agreement: Agreement,
) -> None:
    """Until somebody agreed, the Spender is free, also when it can no longer be approved."""
    lease = agreement.create()
    agreement.at(agreement.now + 60 * DAY)
    done = agreement.send("cancelLease", lease, by=agreement.spender)
    assert done.events == [
        ContractEvent("Credited", {"leaseId": lease, "account": agreement.spender, "amount": ETHER}),
        ContractEvent("LeaseCancelled", {"leaseId": lease}),
    ]
    refunded(agreement, lease)


def test_when_the_caller_is_the_spender_given_something_is_committed_it_reverts_with_something_committed(
    agreement: Agreement,
) -> None:
    """Work delivered is paid: approved, executed or in dispute, early or late."""
    expiry = agreement.now + DAY
    approved = agreement.committed(expires_at=expiry, computations=2)
    executed = agreement.executed(expires_at=expiry)
    disputed = agreement.committed(expires_at=expiry, computations=2)
    agreement.send("raiseDispute", disputed, "", by=agreement.spender, value=STAKE)
    for moment in (agreement.now, expiry + 3 * DAY):
        agreement.at(moment)
        for lease in (approved, executed, disputed):
            refusal = agreement.refused("cancelLease", lease, by=agreement.spender)
            assert refusal == Refusal("SomethingCommitted", {"leaseId": lease, "committed": 1})


def test_when_the_caller_is_the_spender_given_nothing_is_committed_when_the_expiry_is_1_day_past_it_reverts_with_too_early(
    agreement: Agreement,
) -> None:
    """The Earner's last second to commit is not the Spender's first to cancel."""
    expiry = agreement.now + DAY
    lease = agreement.approved(expires_at=expiry)
    for moment in (agreement.now, expiry + DAY):
        agreement.at(moment)
        refusal = agreement.refused("cancelLease", lease, by=agreement.spender)
        assert refusal == Refusal("TooEarly", {"leaseId": lease, "after_": expiry + DAY})


def test_when_the_caller_is_the_spender_given_nothing_is_committed_when_the_expiry_is_more_than_1_day_past_it_refunds_the_price(
    agreement: Agreement,
) -> None:
    """Work never delivered is not paid."""
    expiry = agreement.now + DAY
    lease = agreement.approved(expires_at=expiry)
    agreement.at(expiry + DAY + 1)
    agreement.send("cancelLease", lease, by=agreement.spender)
    refunded(agreement, lease)


def test_when_the_caller_is_the_spender_given_nothing_is_committed_when_the_lease_is_in_dispute_by_then_it_refunds_price_and_stake(
    agreement: Agreement,
) -> None:
    """The Earner could have committed in spite of the dispute, and did not."""
    expiry = agreement.now + DAY
    lease = agreement.disputed(expires_at=expiry)
    agreement.at(expiry + DAY + 1)
    agreement.send("cancelLease", lease, by=agreement.spender)
    refunded(agreement, lease, ETHER + STAKE)


@pytest.mark.parametrize("status", ["created", "approved", "executed"])
def test_when_the_caller_is_the_earner_given_the_lease_is_created_or_approved_or_executed_it_refunds_the_price(
    agreement: Agreement, status: str
) -> None:
    """Consent may be withdrawn at any time, at the Earner's own cost."""
    lease = agreement.in_status(status)
    agreement.send("cancelLease", lease, by=agreement.earner)
    refunded(agreement, lease)


def test_when_the_caller_is_the_earner_given_the_lease_is_in_dispute_it_refunds_price_and_stake(agreement: Agreement) -> None:
    """The Earner may give in without an arbiter."""
    lease = agreement.disputed()
    agreement.send("cancelLease", lease, by=agreement.earner)
    refunded(agreement, lease, ETHER + STAKE)


def test_when_the_caller_is_the_earner_given_the_dispute_window_is_long_past_it_refunds_the_price(agreement: Agreement) -> None:
    """Only being final ends the right."""
    lease = agreement.executed()
    agreement.at(agreement.now + 400 * DAY)
    agreement.send("cancelLease", lease, by=agreement.earner)
    refunded(agreement, lease)


def test_given_the_contract_is_paused_it_refunds_the_price(agreement: Agreement) -> None:
    """A pause never stops an exit."""
    lease = agreement.create()
    agreement.send("pause", by=agreement.owner)
    agreement.send("cancelLease", lease, by=agreement.spender)
    refunded(agreement, lease)
