"""unpause: creation and approval again."""

from __future__ import annotations

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import Agreement, Refusal


def test_when_the_caller_is_not_the_owner_it_reverts_with_ownable_unauthorized_account(agreement: Agreement) -> None:
    """Nobody else opens the door."""
    agreement.send("pause", by=agreement.owner)
    refusal = agreement.refused("unpause", by=agreement.stranger)
    assert refusal == Refusal("OwnableUnauthorizedAccount", {"account": agreement.stranger})


def test_given_the_contract_is_not_paused_it_reverts_with_expected_pause(agreement: Agreement) -> None:
    """A mistake worth telling."""
    assert agreement.refused("unpause", by=agreement.owner) == Refusal("ExpectedPause", {})


def test_when_the_owner_unpauses_it_emits_unpaused_and_leases_can_be_made_again(agreement: Agreement) -> None:
    """Creation and approval both."""
    agreement.send("pause", by=agreement.owner)
    assert agreement.send("unpause", by=agreement.owner).events == [ContractEvent("Unpaused", {"account": agreement.owner})]
    assert agreement.status(agreement.approved()) == "approved"
