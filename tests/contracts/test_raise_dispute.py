"""raiseDispute: the Spender objects in time, and puts money where the mouth is."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, ETHER, NO_LEASE, Agreement, Refusal

STAKE = ETHER // 10


def test_given_there_is_no_such_lease_it_reverts_with_unknown_lease(agreement: Agreement) -> None:
    """An id nobody paid for."""
    assert agreement.refused("raiseDispute", NO_LEASE, "", by=agreement.spender) == Refusal("UnknownLease", {"leaseId": NO_LEASE})


@pytest.mark.parametrize("status", ["created", "disputed", "finalized", "cancelled", "refunded", "settled"])
def test_given_the_lease_is_not_approved_or_in_dispute_or_final_it_reverts_with_wrong_status(
    agreement: Agreement, status: str
) -> None:
    """Before approval one cancels, and one dispute is enough."""
    lease = agreement.in_status(status)
    refusal = agreement.refused("raiseDispute", lease, "", by=agreement.spender, value=STAKE)
    assert refusal == Refusal("WrongStatus", {"leaseId": lease, "status": status})


def test_when_the_caller_is_not_the_spender_it_reverts_with_not_spender(agreement: Agreement) -> None:
    """Nobody objects in the Spender's name, whatever they put up."""
    lease = agreement.approved()
    for caller in (agreement.earner, agreement.stranger, agreement.arbiter):
        refusal = agreement.refused("raiseDispute", lease, "", by=caller, value=STAKE)
        assert refusal == Refusal("NotSpender", {"leaseId": lease, "caller": caller})


@pytest.mark.parametrize("sent", [0, STAKE - 1, STAKE + 1])
def test_when_the_stake_is_not_exact_it_reverts_with_wrong_stake(agreement: Agreement, sent: int) -> None:
    """Neither less nor more: what is not the stake would be nobody's."""
    lease = agreement.approved()
    refusal = agreement.refused("raiseDispute", lease, "", by=agreement.spender, value=sent)
    assert refusal == Refusal("WrongStake", {"leaseId": lease, "sent": sent, "stake": STAKE})


def test_when_the_reason_is_longer_than_256_bytes_it_reverts_with_reason_too_long(agreement: Agreement) -> None:
    """Counted in bytes of UTF-8, not in letters."""
    lease = agreement.approved()
    refusal = agreement.refused("raiseDispute", lease, "é" * 128 + "x", by=agreement.spender, value=STAKE)
    assert refusal == Refusal("ReasonTooLong", {"length": 257, "max": 256})


def test_when_the_reason_is_256_bytes_long_it_disputes(agreement: Agreement) -> None:
    """The cap is included, and the reason arrives whole."""
    lease = agreement.approved()
    done = agreement.send("raiseDispute", lease, "é" * 128, by=agreement.spender, value=STAKE)
    assert done.event("DisputeRaised")["reason"] == "é" * 128


def test_when_the_price_is_below_10_wei_it_disputes_without_a_stake(agreement: Agreement) -> None:
    """A tenth is rounded down."""
    lease = agreement.approved(price=9)
    done = agreement.send("raiseDispute", lease, "", by=agreement.spender)
    assert done.event("DisputeRaised")["stakeAmount"] == 0


def test_given_the_lease_is_approved_it_holds_the_stake_and_emits_dispute_raised(agreement: Agreement) -> None:
    """One event with all its values, at any time after approval."""
    lease = agreement.approved()
    agreement.at(agreement.now + 300 * DAY)
    done = agreement.send("raiseDispute", lease, "nothing came", by=agreement.spender, value=STAKE)
    expected = {
        "leaseId": lease,
        "spender": agreement.spender,
        "earner": agreement.earner,
        "reason": "nothing came",
        "stakeAmount": STAKE,
    }
    assert done.events == [ContractEvent("DisputeRaised", expected)]
    assert agreement.balance() == ETHER + STAKE
    found = agreement.lease(lease)
    assert (found["status"], found["isDisputed"], found["disputedAt"]) == ("disputed", True, done.timestamp)


def test_given_the_lease_is_executed_when_7_days_have_passed_to_the_second_it_disputes(agreement: Agreement) -> None:
    """The window's last second is included."""
    lease = agreement.executed()
    agreement.at(agreement.lease(lease)["executedAt"] + 7 * DAY)
    agreement.send("raiseDispute", lease, "", by=agreement.spender, value=STAKE)
    assert agreement.status(lease) == "disputed"


def test_given_the_lease_is_executed_when_more_than_7_days_have_passed_it_reverts_with_too_late(agreement: Agreement) -> None:
    """From then on the Earner may be paid."""
    lease = agreement.executed()
    until = agreement.lease(lease)["executedAt"] + 7 * DAY
    agreement.at(until + 1)
    refusal = agreement.refused("raiseDispute", lease, "", by=agreement.spender, value=STAKE)
    assert refusal == Refusal("TooLate", {"leaseId": lease, "until": until})


def test_given_the_contract_is_paused_it_disputes(agreement: Agreement) -> None:
    """A pause never stops an objection."""
    lease = agreement.approved()
    agreement.send("pause", by=agreement.owner)
    agreement.send("raiseDispute", lease, "", by=agreement.spender, value=STAKE)
    assert agreement.status(lease) == "disputed"
