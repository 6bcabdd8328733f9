"""Ether comes in with createLease and raiseDispute, and in no other way that counts."""

from __future__ import annotations

import pytest

from tests.contracts.agreement import ETHER, NO_LEASE, Agreement, Refusal


def test_when_it_is_sent_without_a_call_it_is_refused(agreement: Agreement) -> None:
    """No receive(): it would be nobody's."""
    assert isinstance(agreement.raw(b"", by=agreement.spender, value=1), Refusal)
    assert agreement.balance() == 0


def test_when_an_unknown_function_is_called_it_is_refused(agreement: Agreement) -> None:
    """The contract has no fallback function."""
    assert isinstance(agreement.raw(bytes.fromhex("deadbeef"), by=agreement.spender), Refusal)


@pytest.mark.parametrize("function", ["approveLease", "executeLease", "finalizeLease", "cancelLease", "splitDispute"])
def test_when_a_function_that_takes_none_is_sent_some_it_is_refused(agreement: Agreement, function: str) -> None:
    """It would be nobody's."""
    found = agreement.raw(agreement.abi.encode_call(function, NO_LEASE), by=agreement.spender, value=1)
    assert isinstance(found, Refusal)
    assert found.name == "Unknown"  # refused before the body that would have said UnknownLease
    assert agreement.balance() == 0


def test_when_it_is_forced_in_it_changes_nobodys_credit(agreement: Agreement) -> None:
    """Block rewards and self-destructs ask nobody; the accounts do not read the balance."""
    lease = agreement.executed()
    withdrawal = {"index": 0, "validator_index": 0, "address": agreement.w3.to_checksum_address(agreement.address), "amount": 10**9}
    agreement.tester.backend.apply_withdrawals([withdrawal])
    forced = agreement.balance() - ETHER
    assert forced > 0
    agreement.send("finalizeLease", lease, by=agreement.spender)
    assert agreement.send("withdraw", by=agreement.earner).event("Withdrawn")["amount"] == ETHER
    assert agreement.balance() == forced
