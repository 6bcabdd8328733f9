"""setOperator: the node's hot key works for the Earner and holds no money."""

from __future__ import annotations

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, ZERO, Agreement


def test_when_an_operator_is_set_it_emits_operator_changed_and_names_it(agreement: Agreement) -> None:
    """For the caller alone."""
    done = agreement.send("setOperator", agreement.operator, by=agreement.earner)
    assert done.events == [ContractEvent("OperatorChanged", {"earner": agreement.earner, "operator": agreement.operator})]
    assert agreement.view("operatorOf", agreement.earner) == agreement.operator
    assert agreement.view("operatorOf", agreement.other) == ZERO


def test_when_zero_is_set_it_takes_the_powers_back(agreement: Agreement) -> None:
    """And the operator may be appointed again."""
    for operator in (agreement.operator, ZERO, agreement.operator):
        agreement.send("setOperator", operator, by=agreement.earner)
        assert agreement.view("operatorOf", agreement.earner) == operator


def test_when_the_operator_tries_to_take_money_or_to_cancel_it_reverts(agreement: Agreement) -> None:
    """The worst a stolen operator key can do is work badly."""
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    waiting, paid = agreement.executed(), agreement.finalized()
    agreement.at(agreement.now + 8 * DAY)
    assert agreement.status(paid) == "finalized"
    attempts = [
        agreement.refused("withdraw", by=agreement.operator).name,
        agreement.refused("withdrawTo", agreement.operator, by=agreement.operator).name,
        agreement.refused("finalizeLease", waiting, by=agreement.operator).name,
        agreement.refused("cancelLease", waiting, by=agreement.operator).name,
    ]
    assert attempts == ["NothingToWithdraw", "NothingToWithdraw", "NotParty", "NotParty"]
