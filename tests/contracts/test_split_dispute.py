"""splitDispute: the way out when the arbiter never decides."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, ETHER, NO_LEASE, Agreement, Refusal

STAKE = ETHER // 10


def lapse(agreement: Agreement, lease: str) -> None:
    """To the first second in which anyone may split."""
    agreement.at(agreement.lease(lease)["disputedAt"] + 30 * DAY + 1)


def test_given_there_is_no_such_lease_it_reverts_with_unknown_lease(agreement: Agreement) -> None:
    """An id nobody paid for."""
    assert agreement.refused("splitDispute", NO_LEASE, by=agreement.stranger) == Refusal("UnknownLease", {"leaseId": NO_LEASE})


@pytest.mark.parametrize("status", ["created", "approved", "executed", "finalized", "cancelled", "refunded", "settled"])
def test_given_the_lease_is_not_in_dispute_it_reverts_with_wrong_status(agreement: Agreement, status: str) -> None:
    """Nothing to split, however late."""
    lease = agreement.in_status(status)
    agreement.at(agreement.now + 100 * DAY)
    refusal = agreement.refused("splitDispute", lease, by=agreement.stranger)
    assert refusal == Refusal("WrongStatus", {"leaseId": lease, "status": status})


def test_when_30_days_have_passed_to_the_second_it_reverts_with_too_early(agreement: Agreement) -> None:
    """The arbiter's last second is nobody else's."""
    lease = agreement.disputed()
    until = agreement.lease(lease)["disputedAt"] + 30 * DAY
    agreement.at(until)
    refusal = agreement.refused("splitDispute", lease, by=agreement.spender)
    assert refusal == Refusal("TooEarly", {"leaseId": lease, "after_": until})


def test_when_more_than_30_days_have_passed_it_gives_each_half_and_the_stake_back_and_emits_dispute_resolved_and_dispute_split(
    agreement: Agreement,
) -> None:
    """Anyone may call, and gains nothing by it."""
    lease = agreement.disputed_after_commitment()
    lapse(agreement, lease)
    done = agreement.send("splitDispute", lease, by=agreement.stranger)
    spender, earner = ETHER // 2 + STAKE, ETHER // 2
    assert done.events == [
        ContractEvent("Credited", {"leaseId": lease, "account": agreement.spender, "amount": spender}),
        ContractEvent("Credited", {"leaseId": lease, "account": agreement.earner, "amount": earner}),
        ContractEvent("DisputeResolved", {"leaseId": lease, "isDisputeValid": False, "stakeAmount": STAKE}),
        ContractEvent("DisputeSplit", {"leaseId": lease, "spenderAmount": spender, "earnerAmount": earner}),
    ]
    assert agreement.status(lease) == "settled"
    credited = [agreement.credit(who) for who in (agreement.spender, agreement.earner, agreement.stranger)]
    assert credited == [spender, earner, 0]


def test_when_nothing_was_committed_it_gives_the_whole_price_and_the_stake_back(agreement: Agreement) -> None:
    """Work that was not delivered is not paid, whoever was silent."""
    lease = agreement.disputed()
    lapse(agreement, lease)
    done = agreement.send("splitDispute", lease, by=agreement.stranger)
    assert done.event("DisputeSplit") == {"leaseId": lease, "spenderAmount": ETHER + STAKE, "earnerAmount": 0}
    assert [agreement.credit(who) for who in (agreement.spender, agreement.earner)] == [ETHER + STAKE, 0]
    assert agreement.status(lease) == "settled"


def test_when_the_price_is_odd_it_gives_the_odd_wei_to_the_spender(agreement: Agreement) -> None:
    """Not one wei stays behind."""
    lease = agreement.disputed_after_commitment(price=101)
    lapse(agreement, lease)
    agreement.send("splitDispute", lease, by=agreement.earner)
    assert [agreement.credit(who) for who in (agreement.spender, agreement.earner)] == [51 + 10, 50]
    agreement.send("withdraw", by=agreement.spender)
    agreement.send("withdraw", by=agreement.earner)
    assert agreement.balance() == 0
