"""setArbiter: for leases to come, never for those that are."""

from __future__ import annotations

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import ZERO, Agreement, Refusal


def test_when_the_caller_is_not_the_owner_it_reverts_with_ownable_unauthorized_account(agreement: Agreement) -> None:
    """Not even the arbiter names a successor."""
    for caller in (agreement.arbiter, agreement.stranger):
        refusal = agreement.refused("setArbiter", agreement.other, by=caller)
        assert refusal == Refusal("OwnableUnauthorizedAccount", {"account": caller})


def test_when_the_arbiter_is_zero_it_reverts_with_zero_address(agreement: Agreement) -> None:
    """There is always somebody to ask."""
    assert agreement.refused("setArbiter", ZERO, by=agreement.owner) == Refusal("ZeroAddress", {})


def test_when_the_owner_appoints_it_emits_arbiter_changed_and_leaves_older_leases_theirs(agreement: Agreement) -> None:
    """Each lease keeps the arbiter both sides could see when they agreed."""
    older = agreement.create()
    done = agreement.send("setArbiter", agreement.other, by=agreement.owner)
    assert done.events == [ContractEvent("ArbiterChanged", {"arbiterId": 2, "arbiter": agreement.other})]
    assert agreement.view("currentArbiter") == agreement.other
    newer = agreement.create()
    assert [agreement.lease(one)["arbiter"] for one in (older, newer)] == [agreement.arbiter, agreement.other]
