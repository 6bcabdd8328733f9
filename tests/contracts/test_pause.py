"""pause: stops what begins, nothing that ends (each exit's own file shows that it goes on)."""

from __future__ import annotations

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import Agreement, Refusal


def test_when_the_caller_is_not_the_owner_it_reverts_with_ownable_unauthorized_account(agreement: Agreement) -> None:
    """Nobody else closes the door."""
    refusal = agreement.refused("pause", by=agreement.arbiter)
    assert refusal == Refusal("OwnableUnauthorizedAccount", {"account": agreement.arbiter})


def test_given_the_contract_is_paused_already_it_reverts_with_enforced_pause(agreement: Agreement) -> None:
    """Twice is a mistake worth telling."""
    agreement.send("pause", by=agreement.owner)
    assert agreement.refused("pause", by=agreement.owner) == Refusal("EnforcedPause", {})


def test_when_the_owner_pauses_it_emits_paused(agreement: Agreement) -> None:
    """And the state can be read."""
    assert agreement.send("pause", by=agreement.owner).events == [ContractEvent("Paused", {"account": agreement.owner})]
    assert agreement.view("paused") is True
