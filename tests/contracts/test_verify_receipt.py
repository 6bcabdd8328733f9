"""verifyReceipt: a view for whoever holds a receipt; it never reverts."""

from __future__ import annotations

from typing import Any

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import CREATE, DAY, NO_LEASE, PRODUCT, Agreement, Refusal, word
from tests.contracts.evm import Evm


def verified(agreement: Agreement, lease: str, by: str) -> bool:
    """A receipt of this lease signed by somebody."""
    receipt = agreement.receipt(lease)
    return bool(agreement.view("verifyReceipt", receipt, agreement.sign(receipt, by)))


def test_given_there_is_no_such_lease_it_is_false(agreement: Agreement) -> None:
    """Not an error: the answer is no."""
    assert not verified(agreement, NO_LEASE, agreement.earner)


def test_given_the_lease_is_not_approved_it_is_false(agreement: Agreement) -> None:
    """Without an agreement there is nothing to receipt."""
    assert not verified(agreement, agreement.create(), agreement.earner)


def test_when_the_earner_signed_it_it_is_true(agreement: Agreement) -> None:
    """Also after the lease is final: a receipt is evidence for good."""
    lease = agreement.finalized()
    assert verified(agreement, lease, agreement.earner)


def test_when_the_operator_signed_it_it_is_true(agreement: Agreement) -> None:
    """The node signs with its own key."""
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    assert verified(agreement, agreement.approved(), agreement.operator)


class Second:
    """A lease and its Earner's calls, all in one second: as in one block, or in the blocks of a chain that makes several a second."""

    def __init__(self) -> None:
        self.evm = Evm()
        owner, arbiter, self.spender, self.earner, self.operator, self.other = self.evm.accounts[:6]
        self.evm.deploy(owner, arbiter)
        self.send(self.earner, "setOperator", self.operator)
        terms = (self.earner, PRODUCT, 0, self.evm.now + DAY, 1)
        self.lease = str(self.send(self.spender, CREATE, *terms)[0].values["leaseId"])

    def send(self, by: str, function: str, *values: Any) -> list[ContractEvent]:
        """A call that must succeed."""
        found = self.evm.call(self.evm.abi.encode_call(function, *values), by=by)
        assert not isinstance(found, Refusal), found
        return found

    def convicts(self, signer: str) -> bool:
        """Whether two receipts of this signer refund the lease: `verifyReceipt`, asked by a transaction."""
        signed = []
        for result in (2, 3):
            receipt = (self.lease, word(1), word(91), word(92), word(result))
            signed += [receipt, self.evm.sign(receipt, signer)]
        found = self.evm.call(self.evm.abi.encode_call("proveEquivocation", *signed), by=self.spender)
        assert not isinstance(found, Refusal) or found.name == "NotSigned", found
        return not isinstance(found, Refusal)


def test_given_the_operator_was_replaced_when_the_lease_was_approved_before_in_the_same_second_it_is_true() -> None:
    """What it signed for the lease it worked under stays evidence."""
    second = Second()
    second.send(second.earner, "approveLease", second.lease)
    second.send(second.earner, "setOperator", second.other)
    assert second.convicts(second.operator)


def test_given_the_operator_was_replaced_when_the_lease_was_approved_after_in_the_same_second_it_is_false() -> None:
    """A stolen key that was replaced first signs nothing: the order of calls decides, not the clock."""
    second = Second()
    second.send(second.earner, "setOperator", second.other)
    second.send(second.earner, "approveLease", second.lease)
    assert not second.convicts(second.operator)
    assert second.convicts(second.other)


def test_given_the_operator_was_replaced_when_it_was_appointed_and_replaced_again_later_it_is_true(agreement: Agreement) -> None:
    """It was operator during the lease, though not when it was approved."""
    for operator in (agreement.operator, agreement.other):
        agreement.send("setOperator", operator, by=agreement.earner)
    lease = agreement.approved()
    for operator in (agreement.operator, agreement.other):
        agreement.send("setOperator", operator, by=agreement.earner)
    assert verified(agreement, lease, agreement.operator)
    assert not verified(agreement, agreement.approved(), agreement.operator)


def test_when_anyone_else_signed_it_it_is_false(agreement: Agreement) -> None:
    """The Spender's own signature proves nothing."""
    lease = agreement.approved()
    assert [verified(agreement, lease, who) for who in (agreement.spender, agreement.owner, agreement.operator)] == [False] * 3


@pytest.mark.parametrize("position", range(5))
def test_when_a_value_was_changed_it_is_false(agreement: Agreement, position: int) -> None:
    """The signature covers every value."""
    lease, other = agreement.approved(), agreement.approved()
    receipt = agreement.receipt(lease)
    signature = agreement.sign(receipt, agreement.earner)
    changed = [*receipt]
    changed[position] = other if position == 0 else word(777)
    assert not agreement.view("verifyReceipt", tuple(changed), signature)
    assert agreement.view("verifyReceipt", receipt, signature)


def test_when_the_signature_is_malformed_it_is_false(agreement: Agreement) -> None:
    """Too short, too long, or with an impossible recovery id."""
    receipt = agreement.receipt(agreement.approved())
    signature = agreement.sign(receipt, agreement.earner)
    for spoilt in ("0x", signature[:-2], signature + "00", signature[:-2] + "02"):
        assert not agreement.view("verifyReceipt", receipt, spoilt)
