"""withdrawTo: the caller's credit, to an address of the caller's choice."""

from __future__ import annotations

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import ETHER, ZERO, Agreement, Refusal


def test_given_there_is_no_credit_it_reverts_with_nothing_to_withdraw(agreement: Agreement) -> None:
    """The credit is the caller's, not the recipient's."""
    agreement.finalized()
    refusal = agreement.refused("withdrawTo", agreement.earner, by=agreement.stranger)
    assert refusal == Refusal("NothingToWithdraw", {"account": agreement.stranger})


def test_when_the_recipient_is_zero_it_reverts_with_zero_address(agreement: Agreement) -> None:
    """Money is not burned by a forgotten argument."""
    agreement.finalized()
    assert agreement.refused("withdrawTo", ZERO, by=agreement.earner) == Refusal("ZeroAddress", {})
    assert agreement.credit(agreement.earner) == ETHER


def test_when_the_recipient_is_the_contract_itself_it_reverts_with_withdrawal_failed(agreement: Agreement) -> None:
    """It takes no ether, not even its own."""
    agreement.finalized()
    refusal = agreement.refused("withdrawTo", agreement.address, by=agreement.earner)
    assert refusal == Refusal("WithdrawalFailed", {"to": agreement.address, "amount": ETHER})
    assert agreement.credit(agreement.earner) == ETHER


def test_when_the_recipient_is_another_address_it_pays_there_and_emits_withdrawn(agreement: Agreement) -> None:
    """The whole credit is paid, to the wei."""
    agreement.finalized()
    before = agreement.balance(agreement.other)
    done = agreement.send("withdrawTo", agreement.other, by=agreement.earner)
    expected = {"account": agreement.earner, "to": agreement.other, "amount": ETHER}
    assert done.events == [ContractEvent("Withdrawn", expected)]
    assert agreement.balance(agreement.other) == before + ETHER
    assert (agreement.credit(agreement.earner), agreement.balance()) == (0, 0)
