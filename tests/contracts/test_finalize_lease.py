"""finalizeLease: the Spender at once, either side after the dispute window."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, ETHER, NO_LEASE, Agreement, Refusal


def paid(agreement: Agreement, lease: str) -> None:
    """The Earner may withdraw the price, and nobody else anything."""
    assert agreement.status(lease) == "finalized"
    assert [agreement.credit(who) for who in (agreement.earner, agreement.spender)] == [ETHER, 0]


def test_given_there_is_no_such_lease_it_reverts_with_unknown_lease(agreement: Agreement) -> None:
    """An id nobody paid for."""
    assert agreement.refused("finalizeLease", NO_LEASE, by=agreement.spender) == Refusal("UnknownLease", {"leaseId": NO_LEASE})


@pytest.mark.parametrize("status", ["created", "approved", "disputed", "finalized", "cancelled", "refunded", "settled"])
def test_given_the_lease_is_not_executed_it_reverts_with_wrong_status(agreement: Agreement, status: str) -> None:
    """Neither before the work is called done nor twice."""
    lease = agreement.in_status(status)
    for caller in (agreement.spender, agreement.earner):
        refusal = agreement.refused("finalizeLease", lease, by=caller)
        assert refusal == Refusal("WrongStatus", {"leaseId": lease, "status": status})


def test_when_the_caller_is_a_stranger_or_the_operator_it_reverts_with_not_party(agreement: Agreement) -> None:
    """Money is moved by the parties' own keys, however long it waits."""
    executed = agreement.now
    lease = agreement.executed()
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    agreement.at(executed + 100 * DAY)
    for caller in (agreement.stranger, agreement.operator, agreement.owner, agreement.arbiter):
        refusal = agreement.refused("finalizeLease", lease, by=caller)
        assert refusal == Refusal("NotParty", {"leaseId": lease, "caller": caller})


def test_when_the_caller_is_the_spender_it_credits_the_earner_at_once_and_emits_lease_finalized(agreement: Agreement) -> None:
    """Two events; the reward of the first version is zero."""
    lease = agreement.executed()
    done = agreement.send("finalizeLease", lease, by=agreement.spender)
    assert done.events == [
        ContractEvent("Credited", {"leaseId": lease, "account": agreement.earner, "amount": ETHER}),
        ContractEvent("LeaseFinalized", {"leaseId": lease, "earner": agreement.earner, "reputationReward": 0}),
    ]
    paid(agreement, lease)


def test_when_the_caller_is_the_earner_given_7_days_have_passed_to_the_second_it_reverts_with_too_early(
    agreement: Agreement,
) -> None:
    """The Spender's last second to object is not the Earner's first to be paid."""
    lease = agreement.executed()
    until = agreement.lease(lease)["executedAt"] + 7 * DAY
    agreement.at(until)
    refusal = agreement.refused("finalizeLease", lease, by=agreement.earner)
    assert refusal == Refusal("TooEarly", {"leaseId": lease, "after_": until})


def test_when_the_caller_is_the_earner_given_more_than_7_days_have_passed_it_credits_the_earner(agreement: Agreement) -> None:
    """A silent Spender keeps nobody from being paid."""
    lease = agreement.executed()
    agreement.at(agreement.lease(lease)["executedAt"] + 7 * DAY + 1)
    agreement.send("finalizeLease", lease, by=agreement.earner)
    paid(agreement, lease)


def test_given_the_contract_is_paused_it_credits_the_earner(agreement: Agreement) -> None:
    """A pause never stops an exit or a clock."""
    lease = agreement.executed()
    agreement.send("pause", by=agreement.owner)
    agreement.at(agreement.lease(lease)["executedAt"] + 7 * DAY + 1)
    agreement.send("finalizeLease", lease, by=agreement.earner)
    paid(agreement, lease)
