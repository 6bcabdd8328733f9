"""proveEquivocation: two results signed for one computation refund the lease without an arbiter."""

from __future__ import annotations

from typing import Any

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.contracts.agreement import DAY, ETHER, NO_LEASE, ZERO, Agreement, Done, Refusal, word

CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
STAKE = ETHER // 10


def proof(agreement: Agreement, lease: str, first: str, second: str, **domain: Any) -> tuple[Any, ...]:
    """Two receipts of one computation with results 2 and 3, signed by `first` and `second`; `domain` alters the second's."""
    one, other = agreement.receipt(lease, result=2), agreement.receipt(lease, result=3)
    return one, agreement.sign(one, first), other, agreement.sign(other, second, **domain)


def proved(agreement: Agreement, lease: str, values: tuple[Any, ...], amount: int = ETHER) -> Done:
    """By a stranger; the Spender may withdraw that much, and nobody else anything."""
    done = agreement.send("proveEquivocation", *values, by=agreement.stranger)
    assert agreement.status(lease) == "refunded"
    credited = [agreement.credit(who) for who in (agreement.spender, agreement.earner, agreement.stranger)]
    assert credited == [amount, 0, 0]
    return done


def not_signed(lease: str, result: int) -> Refusal:
    """The refusal that names the receipt with this result."""
    return Refusal("NotSigned", {"leaseId": lease, "resultHash": word(result)})


def test_given_there_is_no_such_lease_it_reverts_with_unknown_lease(agreement: Agreement) -> None:
    """An id nobody paid for."""
    values = proof(agreement, NO_LEASE, agreement.earner, agreement.earner)
    refusal = agreement.refused("proveEquivocation", *values, by=agreement.spender)
    assert refusal == Refusal("UnknownLease", {"leaseId": NO_LEASE})


@pytest.mark.parametrize("status", ["created", "finalized", "cancelled", "refunded", "settled"])
def test_given_the_lease_is_not_approved_or_final_it_reverts_with_wrong_status(agreement: Agreement, status: str) -> None:
    """What is paid out is not taken back, and nothing is owed before approval."""
    lease = agreement.in_status(status)
    refusal = agreement.refused(
        "proveEquivocation", *proof(agreement, lease, agreement.earner, agreement.earner), by=agreement.spender
    )
    assert refusal == Refusal("WrongStatus", {"leaseId": lease, "status": status})


def test_when_the_receipts_are_of_two_leases_it_reverts_with_no_equivocation(agreement: Agreement) -> None:
    """Two leases may have two results."""
    lease, other = agreement.approved(), agreement.approved()
    one, two = agreement.receipt(lease, result=2), agreement.receipt(other, result=3)
    values = (one, agreement.sign(one, agreement.earner), two, agreement.sign(two, agreement.earner))
    assert agreement.refused("proveEquivocation", *values, by=agreement.spender) == Refusal("NoEquivocation", {})


def test_when_the_receipts_are_of_two_computations_it_reverts_with_no_equivocation(agreement: Agreement) -> None:
    """Two computations may have two results."""
    lease = agreement.approved(computations=2)
    one, two = agreement.receipt(lease, computation=1, result=2), agreement.receipt(lease, computation=2, result=3)
    values = (one, agreement.sign(one, agreement.earner), two, agreement.sign(two, agreement.earner))
    assert agreement.refused("proveEquivocation", *values, by=agreement.spender) == Refusal("NoEquivocation", {})


def test_when_the_receipts_state_the_same_result_it_reverts_with_no_equivocation(agreement: Agreement) -> None:
    """Signing the same result twice, even with another product version beside it, contradicts nothing."""
    lease = agreement.approved()
    one = agreement.receipt(lease)
    two = (*one[:3], word(99), one[4])
    values = (one, agreement.sign(one, agreement.earner), two, agreement.sign(two, agreement.earner))
    assert agreement.refused("proveEquivocation", *values, by=agreement.spender) == Refusal("NoEquivocation", {})


def test_when_a_receipt_is_signed_by_a_stranger_it_reverts_with_not_signed(agreement: Agreement) -> None:
    """A Spender cannot make up one of the two, first or second."""
    lease = agreement.approved()
    for first, second, culprit in ((agreement.earner, agreement.spender, 3), (agreement.spender, agreement.earner, 2)):
        refusal = agreement.refused("proveEquivocation", *proof(agreement, lease, first, second), by=agreement.spender)
        assert refusal == not_signed(lease, culprit)


@pytest.mark.parametrize("domain", [{"chainId": 1}, {"verifyingContract": "0x" + "12" * 20}, {"version": "2"}, {"name": "Other"}])
def test_when_a_receipt_is_signed_for_another_contract_or_chain_or_version_it_reverts_with_not_signed(
    agreement: Agreement, domain: dict[str, Any]
) -> None:
    """A signature counts only where it was meant."""
    lease = agreement.approved()
    values = proof(agreement, lease, agreement.earner, agreement.earner, **domain)
    assert agreement.refused("proveEquivocation", *values, by=agreement.spender) == not_signed(lease, 3)


@pytest.mark.parametrize("size", [0, 64, 66])
def test_when_a_signature_is_malformed_it_reverts_with_not_signed(agreement: Agreement, size: int) -> None:
    """65 bytes and nothing else: the short form of EIP-2098 would be a second spelling."""
    lease = agreement.approved()
    one, signed, two, other = proof(agreement, lease, agreement.earner, agreement.earner)
    cut = "0x" + (other[2:] + "00")[: 2 * size]
    assert agreement.refused("proveEquivocation", one, signed, two, cut, by=agreement.spender) == not_signed(lease, 3)


def test_when_a_signature_is_the_other_solution_of_the_same_curve_point_it_reverts_with_not_signed(agreement: Agreement) -> None:
    """EIP-2: only the lower `s` is a signature."""
    lease = agreement.approved()
    one, signed, two, other = proof(agreement, lease, agreement.earner, agreement.earner)
    raw = bytes.fromhex(other[2:])
    mirrored = raw[:32] + (CURVE_ORDER - int.from_bytes(raw[32:64], "big")).to_bytes(32, "big") + bytes([55 - raw[64]])
    values = (one, signed, two, "0x" + mirrored.hex())
    assert agreement.refused("proveEquivocation", *values, by=agreement.spender) == not_signed(lease, 3)


def test_when_the_operator_was_replaced_before_the_approval_it_reverts_with_not_signed(agreement: Agreement) -> None:
    """A stolen key, once taken back, signs nothing for later leases."""
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    agreement.send("setOperator", agreement.other, by=agreement.earner)
    lease = agreement.approved()
    values = proof(agreement, lease, agreement.operator, agreement.operator)
    assert agreement.refused("proveEquivocation", *values, by=agreement.spender) == not_signed(lease, 2)


def test_when_the_operator_was_replaced_in_the_second_of_the_approval_it_refunds_the_price(agreement: Agreement) -> None:
    """Both in one block: the operator could still have signed under the lease."""
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    lease = agreement.create()
    agreement.tester.disable_auto_mine_transactions()
    for function, value in (("setOperator", ZERO), ("approveLease", lease)):
        data = agreement.abi.encode_call(function, value)
        earner, contract = (agreement.w3.to_checksum_address(one) for one in (agreement.earner, agreement.address))
        agreement.w3.eth.send_transaction({"from": earner, "to": contract, "data": data, "gas": 200_000})
    agreement.tester.enable_auto_mine_transactions()
    assert agreement.status(lease) == "approved"
    proved(agreement, lease, proof(agreement, lease, agreement.operator, agreement.operator))


def test_when_the_operator_was_replaced_since_it_refunds_the_price(agreement: Agreement) -> None:
    """An Earner does not get rid of what the operator signed by changing the operator."""
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    lease = agreement.approved()
    agreement.send("setOperator", ZERO, by=agreement.earner)
    agreement.at(agreement.now + DAY)
    proved(agreement, lease, proof(agreement, lease, agreement.operator, agreement.operator))


def test_when_the_earner_signed_one_and_the_operator_the_other_it_refunds_the_price(agreement: Agreement) -> None:
    """Both speak for the same side."""
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    lease = agreement.approved()
    proved(agreement, lease, proof(agreement, lease, agreement.earner, agreement.operator))


def test_given_the_lease_is_approved_it_refunds_the_price_and_emits_dispute_resolved_and_equivocation_proven(
    agreement: Agreement,
) -> None:
    """Three events; no stake was held."""
    lease = agreement.approved()
    done = proved(agreement, lease, proof(agreement, lease, agreement.earner, agreement.earner))
    proven = {"leaseId": lease, "computationId": word(1), "firstResultHash": word(2), "secondResultHash": word(3)}
    assert done.events == [
        ContractEvent("Credited", {"leaseId": lease, "account": agreement.spender, "amount": ETHER}),
        ContractEvent("DisputeResolved", {"leaseId": lease, "isDisputeValid": True, "stakeAmount": 0}),
        ContractEvent("EquivocationProven", proven),
    ]


def test_given_the_lease_is_executed_it_refunds_the_price(agreement: Agreement) -> None:
    """Also after the dispute window, as long as the lease is not final."""
    lease = agreement.executed()
    agreement.at(agreement.now + 30 * DAY)
    proved(agreement, lease, proof(agreement, lease, agreement.earner, agreement.earner))


def test_given_the_lease_is_in_dispute_it_refunds_price_and_stake(agreement: Agreement) -> None:
    """A proof ends the dispute, also when the arbiter's time is over."""
    lease = agreement.disputed()
    agreement.at(agreement.now + 40 * DAY)
    proved(agreement, lease, proof(agreement, lease, agreement.earner, agreement.earner), ETHER + STAKE)
