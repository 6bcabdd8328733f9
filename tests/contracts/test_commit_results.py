"""commitResults: many results in one transaction, each by commitResult's own rules."""

from __future__ import annotations

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, NO_LEASE, Agreement, Refusal, word

ZERO_HASH = "0x" + "00" * 32


def committed(lease: str, computation: int, result: int) -> ContractEvent:
    """What a result that counts emits."""
    return ContractEvent("ResultCommitted", {"leaseId": lease, "computationId": word(computation), "resultHash": word(result)})


def test_when_there_is_nothing_to_commit_it_accepts_nothing(agreement: Agreement) -> None:
    """Anyone may say nothing."""
    assert agreement.send("commitResults", [], by=agreement.stranger).events == []


def test_when_all_can_be_committed_it_commits_them_as_commit_result_would(agreement: Agreement) -> None:
    """The same events, the same hashes, the same count."""
    one_by_one, together = agreement.approved(computations=3), agreement.approved(computations=3)
    events = [
        agreement.send("commitResult", one_by_one, word(number), word(number + 10), by=agreement.earner).events[0]
        for number in range(3)
    ]
    batch = [(together, word(number), word(number + 10)) for number in range(3)]
    done = agreement.send("commitResults", batch, by=agreement.earner)
    assert [event.name for event in done.events] == [event.name for event in events]
    assert done.events == [committed(together, number, number + 10) for number in range(3)]
    for lease in (one_by_one, together):
        assert agreement.lease(lease)["committed"] == 3
        assert [agreement.view("committedResult", lease, word(number)) for number in range(3)] == [word(n) for n in (10, 11, 12)]


def test_when_the_results_are_of_several_leases_it_commits_each(agreement: Agreement) -> None:
    """Also of leases in dispute or executed."""
    expiry = agreement.now + DAY
    first, disputed = agreement.committed(expires_at=expiry, computations=2), agreement.disputed()
    agreement.at(expiry)
    agreement.send("executeLease", first, by=agreement.earner)
    done = agreement.send("commitResults", [(first, word(5), word(6)), (disputed, word(5), word(7))], by=agreement.earner)
    assert done.events == [committed(first, 5, 6), committed(disputed, 5, 7)]
    assert [agreement.lease(lease)["committed"] for lease in (first, disputed)] == [2, 1]


def test_when_commit_result_would_refuse_one_it_leaves_it_out_and_says_why_and_commits_the_others(agreement: Agreement) -> None:
    """For each reason there is: the selector in the event is that of the error of `commitResult` on the same values."""
    expiry = agreement.now + 2 * DAY
    late = agreement.approved(expires_at=agreement.now + 60)
    used_up = agreement.committed()
    foreign = agreement.approved(earner=agreement.other)
    good = agreement.approved(expires_at=expiry, computations=3)
    agreement.send("commitResult", good, word(1), word(2), by=agreement.earner)
    agreement.at(agreement.now + DAY + 100)
    bad = [
        (NO_LEASE, word(1), word(2)),
        (agreement.create(), word(1), word(2)),
        (agreement.cancelled(), word(1), word(2)),
        (foreign, word(1), word(2)),
        (late, word(1), word(2)),
        (good, word(9), ZERO_HASH),
        (good, word(1), word(3)),
        (used_up, word(8), word(9)),
    ]
    reasons = [agreement.refused("commitResult", *one, by=agreement.earner).name for one in bad]
    assert reasons == [
        "UnknownLease",
        "WrongStatus",
        "WrongStatus",
        "NotEarnerOrOperator",
        "TooLate",
        "ZeroResultHash",
        "AlreadyCommitted",
        "AllCommitted",
    ]
    batch = [(good, word(4), word(5)), *bad, (good, word(6), word(7))]
    done = agreement.send("commitResults", batch, by=agreement.earner)
    selectors = [agreement.abi.error_selector(name) for name in reasons]
    refused = [
        ContractEvent("CommitmentRefused", {"leaseId": lease, "computationId": computation, "reason": selector})
        for (lease, computation, _), selector in zip(bad, selectors, strict=True)
    ]
    assert done.events == [committed(good, 4, 5), *refused, committed(good, 6, 7)]
    assert agreement.lease(good)["committed"] == 3
    assert agreement.view("committedResult", good, word(1)) == word(2), "what stood there stays"


def test_when_one_computation_stands_there_twice_it_commits_the_first_and_refuses_the_second(agreement: Agreement) -> None:
    """A result that is committed in the same call is committed."""
    lease = agreement.approved(computations=3)
    done = agreement.send("commitResults", [(lease, word(1), word(2)), (lease, word(1), word(3))], by=agreement.earner)
    assert [event.name for event in done.events] == ["ResultCommitted", "CommitmentRefused"]
    assert agreement.view("committedResult", lease, word(1)) == word(2)
    assert agreement.lease(lease)["committed"] == 1


def test_when_more_stand_there_than_were_leased_it_commits_as_many_as_were_leased(agreement: Agreement) -> None:
    """No more than were paid for, in the order in which they stand."""
    lease = agreement.approved(computations=2)
    done = agreement.send("commitResults", [(lease, word(n), word(n + 10)) for n in range(4)], by=agreement.earner)
    assert [event.name for event in done.events] == ["ResultCommitted"] * 2 + ["CommitmentRefused"] * 2
    assert agreement.lease(lease)["committed"] == 2
    assert agreement.refused("commitResult", lease, word(9), word(9), by=agreement.earner) == Refusal(
        "AllCommitted", {"leaseId": lease, "maxComputations": 2}
    )


def test_when_the_caller_is_the_operator_it_commits(agreement: Agreement) -> None:
    """The node's own key, and only for who appointed it."""
    lease, foreign = agreement.approved(), agreement.approved(earner=agreement.other)
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    done = agreement.send("commitResults", [(lease, word(1), word(2)), (foreign, word(1), word(2))], by=agreement.operator)
    assert [event.name for event in done.events] == ["ResultCommitted", "CommitmentRefused"]
