"""commitResult: once per computation, never more than leased, until a day after the expiry."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, NO_LEASE, Agreement, Refusal, word


def commit(agreement: Agreement, lease: str, computation: int = 11, result: int = 12) -> None:
    """By the Earner, and it must count."""
    before = agreement.lease(lease)
    agreement.send("commitResult", lease, word(computation), word(result), by=agreement.earner)
    after = agreement.lease(lease)
    assert (after["committed"], after["status"]) == (before["committed"] + 1, before["status"])
    assert agreement.view("committedResult", lease, word(computation)) == word(result)


def test_given_there_is_no_such_lease_it_reverts_with_unknown_lease(agreement: Agreement) -> None:
    """An id nobody paid for."""
    refusal = agreement.refused("commitResult", NO_LEASE, word(1), word(2), by=agreement.earner)
    assert refusal == Refusal("UnknownLease", {"leaseId": NO_LEASE})


@pytest.mark.parametrize("status", ["created", "finalized", "cancelled", "refunded", "settled"])
def test_given_the_lease_is_not_approved_or_final_it_reverts_with_wrong_status(agreement: Agreement, status: str) -> None:
    """Nothing is delivered before the agreement or after its end."""
    lease = agreement.in_status(status)
    refusal = agreement.refused("commitResult", lease, word(11), word(12), by=agreement.earner)
    assert refusal == Refusal("WrongStatus", {"leaseId": lease, "status": status})


def test_given_the_lease_is_executed_it_commits(agreement: Agreement) -> None:
    """A result that was still running when the expired lease was executed is published, too."""
    expiry = agreement.now + DAY
    lease = agreement.committed(expires_at=expiry, computations=2)
    agreement.at(expiry)
    agreement.send("executeLease", lease, by=agreement.earner)
    commit(agreement, lease)


def test_given_the_lease_is_in_dispute_it_commits(agreement: Agreement) -> None:
    """Disputing first does not stop a result from being shown to the arbiter."""
    commit(agreement, agreement.disputed())


def test_given_the_contract_is_paused_it_commits(agreement: Agreement) -> None:
    """A pause never stops delivery."""
    lease = agreement.approved()
    agreement.send("pause", by=agreement.owner)
    commit(agreement, lease)


def test_when_the_caller_is_neither_earner_nor_operator_it_reverts_with_not_earner_or_operator(agreement: Agreement) -> None:
    """Nobody else speaks for the Earner."""
    lease = agreement.approved()
    for caller in (agreement.spender, agreement.operator):
        refusal = agreement.refused("commitResult", lease, word(1), word(2), by=caller)
        assert refusal == Refusal("NotEarnerOrOperator", {"leaseId": lease, "caller": caller})


def test_when_the_expiry_is_1_day_past_it_commits(agreement: Agreement) -> None:
    """The day of grace, its last second included."""
    expiry = agreement.now + DAY
    lease = agreement.approved(expires_at=expiry)
    agreement.at(expiry + DAY)
    commit(agreement, lease)


def test_when_the_expiry_is_more_than_1_day_past_it_reverts_with_too_late(agreement: Agreement) -> None:
    """From then on the Spender may cancel: no result may come in between."""
    expiry = agreement.now + DAY
    lease = agreement.approved(expires_at=expiry)
    agreement.at(expiry + DAY + 1)
    refusal = agreement.refused("commitResult", lease, word(1), word(2), by=agreement.earner)
    assert refusal == Refusal("TooLate", {"leaseId": lease, "until": expiry + DAY})


def test_when_the_result_is_zero_it_reverts_with_zero_result_hash(agreement: Agreement) -> None:
    """Zero reads as "none"."""
    lease = agreement.approved()
    refusal = agreement.refused("commitResult", lease, word(1), "0x" + "00" * 32, by=agreement.earner)
    assert refusal == Refusal("ZeroResultHash", {})


def test_when_the_computation_has_its_result_already_it_reverts_with_already_committed(agreement: Agreement) -> None:
    """Neither another result nor the same one again; the error shows the one that stands."""
    lease = agreement.committed(computations=3)
    for result in (2, 3):
        refusal = agreement.refused("commitResult", lease, word(1), word(result), by=agreement.earner)
        expected = {"leaseId": lease, "computationId": word(1), "resultHash": word(2)}
        assert refusal == Refusal("AlreadyCommitted", expected)
    assert agreement.view("committedResult", lease, word(1)) == word(2)


def test_when_all_computations_have_their_result_it_reverts_with_all_committed(agreement: Agreement) -> None:
    """No more than were leased."""
    lease = agreement.committed(computations=2)
    commit(agreement, lease)
    refusal = agreement.refused("commitResult", lease, word(13), word(14), by=agreement.earner)
    assert refusal == Refusal("AllCommitted", {"leaseId": lease, "maxComputations": 2})


def test_when_the_caller_is_the_earner_it_emits_result_committed_and_keeps_the_hash_and_counts_it(agreement: Agreement) -> None:
    """One event; other computations and other leases have none."""
    lease, other = agreement.approved(), agreement.approved()
    done = agreement.send("commitResult", lease, word(1), word(2), by=agreement.earner)
    expected = {"leaseId": lease, "computationId": word(1), "resultHash": word(2)}
    assert done.events == [ContractEvent("ResultCommitted", expected)]
    assert agreement.view("committedResult", lease, word(1)) == word(2)
    assert int(agreement.view("committedResult", lease, word(2)), 16) == 0
    assert int(agreement.view("committedResult", other, word(1)), 16) == 0
    assert [agreement.lease(one)["committed"] for one in (lease, other)] == [1, 0]


def test_when_the_caller_is_the_operator_it_commits(agreement: Agreement) -> None:
    """The node's own key is enough."""
    lease = agreement.approved()
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    agreement.send("commitResult", lease, word(1), word(2), by=agreement.operator)
    assert agreement.view("committedResult", lease, word(1)) == word(2)
