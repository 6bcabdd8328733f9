"""The constructor appoints the owner and the first arbiter."""

from __future__ import annotations

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import ZERO, Agreement, Refusal


def deployment(agreement: Agreement, owner: str, arbiter: str) -> Refusal:
    """A refused creation, by its error."""
    found = agreement.creation(owner, arbiter)
    assert isinstance(found, Refusal)
    return found


def test_when_the_owner_is_zero_it_reverts_with_ownable_invalid_owner(agreement: Agreement) -> None:
    """A contract nobody could ever unpause is not made by accident."""
    assert deployment(agreement, ZERO, agreement.arbiter) == Refusal("OwnableInvalidOwner", {"owner": ZERO})


def test_when_the_arbiter_is_zero_it_reverts_with_zero_address(agreement: Agreement) -> None:
    """Disputes have a judge from the first lease on."""
    assert deployment(agreement, agreement.owner, ZERO) == Refusal("ZeroAddress", {})


def test_when_both_are_given_it_appoints_them_and_says_so(agreement: Agreement) -> None:
    """Two events; the deploying account itself gets nothing."""
    done = agreement.creation(agreement.other, agreement.stranger)
    assert not isinstance(done, Refusal)
    assert done.events == [
        ContractEvent("OwnershipTransferred", {"previousOwner": ZERO, "newOwner": agreement.other}),
        ContractEvent("ArbiterChanged", {"arbiterId": 1, "arbiter": agreement.stranger}),
    ]
    assert agreement.view("owner") == agreement.owner
    assert agreement.view("currentArbiter") == agreement.arbiter
