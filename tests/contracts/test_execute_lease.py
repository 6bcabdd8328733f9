"""executeLease: only with something delivered, and only when nothing more can be owed."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, NO_LEASE, Agreement, Refusal


def test_given_there_is_no_such_lease_it_reverts_with_unknown_lease(agreement: Agreement) -> None:
    """An id nobody paid for."""
    assert agreement.refused("executeLease", NO_LEASE, by=agreement.earner) == Refusal("UnknownLease", {"leaseId": NO_LEASE})


@pytest.mark.parametrize("status", ["created", "executed", "disputed", "finalized", "cancelled", "refunded", "settled"])
def test_given_the_lease_is_not_approved_or_no_longer_it_reverts_with_wrong_status(agreement: Agreement, status: str) -> None:
    """From approval only, and once."""
    lease = agreement.in_status(status)
    refusal = agreement.refused("executeLease", lease, by=agreement.earner)
    assert refusal == Refusal("WrongStatus", {"leaseId": lease, "status": status})


def test_given_nothing_is_committed_it_reverts_with_nothing_committed(agreement: Agreement) -> None:
    """Work never delivered is not paid, however long one waits."""
    expiry = agreement.now + DAY
    lease = agreement.approved(expires_at=expiry)
    for moment in (agreement.now, expiry, expiry + DAY + 1):
        agreement.at(moment)
        refusal = agreement.refused("executeLease", lease, by=agreement.earner)
        assert refusal == Refusal("NothingCommitted", {"leaseId": lease})


def test_given_computations_are_left_when_the_expiry_is_the_next_second_it_reverts_with_computations_left(
    agreement: Agreement,
) -> None:
    """The Spender's right to the rest lasts to the expiry."""
    expiry = agreement.now + DAY
    lease = agreement.committed(expires_at=expiry, computations=2)
    agreement.at(expiry - 1)
    refusal = agreement.refused("executeLease", lease, by=agreement.earner)
    assert refusal == Refusal("ComputationsLeft", {"leaseId": lease, "committed": 1, "maxComputations": 2})


def test_given_computations_are_left_when_the_expiry_has_come_it_executes(agreement: Agreement) -> None:
    """What the Spender did not use does not keep the Earner from being paid."""
    expiry = agreement.now + DAY
    lease = agreement.committed(expires_at=expiry, computations=2)
    agreement.at(expiry)
    assert agreement.send("executeLease", lease, by=agreement.earner).timestamp == expiry


def test_given_no_computation_is_left_when_the_caller_is_the_earner_it_executes_and_emits_lease_executed(
    agreement: Agreement,
) -> None:
    """One event, and the second of it is kept; no money moves yet."""
    lease = agreement.committed()
    done = agreement.send("executeLease", lease, by=agreement.earner)
    assert done.events == [ContractEvent("LeaseExecuted", {"leaseId": lease})]
    found = agreement.lease(lease)
    assert (found["status"], found["isExecuted"], found["executedAt"]) == ("executed", True, done.timestamp)
    assert agreement.credit(agreement.earner) == 0


def test_given_no_computation_is_left_when_the_caller_is_the_operator_it_executes(agreement: Agreement) -> None:
    """The node's own key is enough."""
    lease = agreement.committed()
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    agreement.send("executeLease", lease, by=agreement.operator)
    assert agreement.status(lease) == "executed"


def test_given_no_computation_is_left_when_the_caller_is_anyone_else_it_reverts_with_not_earner_or_operator(
    agreement: Agreement,
) -> None:
    """On the first version anyone could."""
    lease = agreement.committed()
    for caller in (agreement.spender, agreement.stranger):
        refusal = agreement.refused("executeLease", lease, by=caller)
        assert refusal == Refusal("NotEarnerOrOperator", {"leaseId": lease, "caller": caller})


def test_given_no_computation_is_left_when_the_contract_is_paused_it_executes(agreement: Agreement) -> None:
    """A pause never stops an exit."""
    lease = agreement.committed()
    agreement.send("pause", by=agreement.owner)
    agreement.send("executeLease", lease, by=agreement.earner)
    assert agreement.status(lease) == "executed"


def test_given_the_expiry_is_1_day_past_when_the_caller_is_anyone_it_reverts_with_not_earner_or_operator(
    agreement: Agreement,
) -> None:
    """The day of grace is the Earner's, its last second included."""
    expiry = agreement.now + DAY
    lease = agreement.committed(expires_at=expiry)
    agreement.at(expiry + DAY)
    refusal = agreement.refused("executeLease", lease, by=agreement.stranger)
    assert refusal == Refusal("NotEarnerOrOperator", {"leaseId": lease, "caller": agreement.stranger})


def test_given_the_expiry_is_more_than_1_day_past_when_the_caller_is_anyone_it_executes(agreement: Agreement) -> None:
    """An Earner who never comes back does not hold the lease open."""
    expiry = agreement.now + DAY
    lease = agreement.committed(expires_at=expiry, computations=9)
    agreement.at(expiry + DAY + 1)
    agreement.send("executeLease", lease, by=agreement.stranger)
    assert agreement.status(lease) == "executed"
