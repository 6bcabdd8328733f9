"""verifyReceipt: a view for whoever holds a receipt; it never reverts."""

from __future__ import annotations

import pytest

from tests.contracts.agreement import NO_LEASE, Agreement, word


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
