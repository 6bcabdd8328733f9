"""approveLeaseBySignature: the Earner agrees without sending a transaction; whoever brings the signature pays the gas."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.contract import ContractEvent
from tests.chain.wallet_setup import WalletBehaviour
from tests.contracts.agreement import DAY, NO_LEASE, ZERO, Agreement, Done, Refusal
from tests.contracts.wallet import Wallet

FOREVER = 2**256 - 1


def bring(agreement: Agreement, lease: str, *, by: str | None = None, deadline: int = FOREVER) -> Done | Refusal:
    """A stranger brings the approval that `by` (the Earner) signed."""
    signature = agreement.sign_approval(lease, deadline, by or agreement.earner)
    call = agreement.abi.encode_call("approveLeaseBySignature", lease, deadline, signature)
    return agreement.raw(call, by=agreement.stranger)


def approves(agreement: Agreement, lease: str, found: Done | Refusal) -> None:
    """It must count, exactly as an approval by the Earner's own transaction would."""
    assert isinstance(found, Done), found
    assert found.events == [ContractEvent("LeaseApproved", {"leaseId": lease})]
    assert (agreement.status(lease), agreement.lease(lease)["approvedAt"]) == ("approved", found.timestamp)
    receipt = agreement.receipt(lease)
    assert agreement.view("verifyReceipt", receipt, agreement.sign(receipt, agreement.owner)) is False


def not_signed(lease: str) -> Refusal:
    """The one refusal of a signature, whatever is wrong with it."""
    return Refusal("ApprovalNotSigned", {"leaseId": lease})


def test_given_there_is_no_such_lease_it_reverts_with_unknown_lease(agreement: Agreement) -> None:
    """An id nobody paid for."""
    assert bring(agreement, NO_LEASE) == Refusal("UnknownLease", {"leaseId": NO_LEASE})


def test_given_the_contract_is_paused_it_reverts_with_enforced_pause(agreement: Agreement) -> None:
    """A pause stops approvals of either kind."""
    lease = agreement.create()
    agreement.send("pause", by=agreement.owner)
    assert bring(agreement, lease) == Refusal("EnforcedPause", {})


@pytest.mark.parametrize("status", ["approved", "executed", "disputed", "finalized", "cancelled", "refunded", "settled"])
def test_given_the_lease_is_not_just_created_it_reverts_with_wrong_status(agreement: Agreement, status: str) -> None:
    """A signature counts once, and brings nothing back."""
    lease = agreement.in_status(status)
    assert bring(agreement, lease) == Refusal("WrongStatus", {"leaseId": lease, "status": status})


def test_when_the_deadline_has_come_to_the_second_it_approves(agreement: Agreement) -> None:
    """The last second is included."""
    lease = agreement.create()
    deadline = agreement.now + 60
    agreement.at(deadline)
    approves(agreement, lease, bring(agreement, lease, deadline=deadline))


def test_when_the_deadline_is_past_it_reverts_with_too_late(agreement: Agreement) -> None:
    """An old signature that somebody kept opens nothing."""
    lease = agreement.create()
    deadline = agreement.now + 60
    agreement.at(deadline + 1)
    assert bring(agreement, lease, deadline=deadline) == Refusal("TooLate", {"leaseId": lease, "until": deadline})


def test_when_7_days_have_passed_to_the_second_it_approves(agreement: Agreement) -> None:
    """The same time as for `approveLease`."""
    lease = agreement.create()
    agreement.at(agreement.lease(lease)["createdAt"] + 7 * DAY)
    approves(agreement, lease, bring(agreement, lease))


def test_when_more_than_7_days_have_passed_it_reverts_with_too_late(agreement: Agreement) -> None:
    """However long the signature was meant to count."""
    lease = agreement.create()
    until = agreement.lease(lease)["createdAt"] + 7 * DAY
    agreement.at(until + 1)
    assert bring(agreement, lease) == Refusal("TooLate", {"leaseId": lease, "until": until})


def test_when_the_expiry_has_come_it_reverts_with_too_late(agreement: Agreement) -> None:
    """Nothing could be computed any more."""
    expiry = agreement.now + 60
    lease = agreement.create(expires_at=expiry)
    agreement.at(expiry)
    assert bring(agreement, lease) == Refusal("TooLate", {"leaseId": lease, "until": expiry - 1})


def test_when_the_earner_signed_it_approves_whoever_brings_it_and_emits_lease_approved(agreement: Agreement) -> None:
    """The Earner needs no ether and no connection."""
    lease = agreement.create()
    approves(agreement, lease, bring(agreement, lease))


def test_when_the_operator_signed_it_approves(agreement: Agreement) -> None:
    """The node's own key agrees for the Earner here, too."""
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    lease = agreement.create()
    approves(agreement, lease, bring(agreement, lease, by=agreement.operator))


def test_when_the_signer_was_replaced_as_operator_it_reverts_with_approval_not_signed(agreement: Agreement) -> None:
    """A key taken back opens nothing, with signatures of before either."""
    lease = agreement.create()
    agreement.send("setOperator", agreement.operator, by=agreement.earner)
    agreement.send("setOperator", ZERO, by=agreement.earner)
    assert bring(agreement, lease, by=agreement.operator) == not_signed(lease)


def test_when_anyone_else_signed_it_reverts_with_approval_not_signed(agreement: Agreement) -> None:
    """Not the Spender, not the arbiter, not the owner."""
    lease = agreement.create()
    for signer in (agreement.spender, agreement.arbiter, agreement.owner, agreement.other):
        assert bring(agreement, lease, by=signer) == not_signed(lease)


def test_when_the_signature_is_for_another_lease_or_deadline_or_chain_or_contract_it_reverts_with_approval_not_signed(
    agreement: Agreement,
) -> None:
    """It covers all of what it opens."""
    lease, other = agreement.create(), agreement.create()
    wrong = [
        agreement.sign_approval(other, FOREVER, agreement.earner),
        agreement.sign_approval(lease, FOREVER - 1, agreement.earner),
        agreement.sign_approval(lease, FOREVER, agreement.earner, chainId=1),
        agreement.sign_approval(lease, FOREVER, agreement.earner, verifyingContract="0x" + "11" * 20),
        agreement.sign_approval(lease, FOREVER, agreement.earner, version="2"),
    ]
    for signature in wrong:
        refusal = agreement.refused("approveLeaseBySignature", lease, FOREVER, signature, by=agreement.stranger)
        assert refusal == not_signed(lease)


def test_when_the_signature_is_malformed_it_reverts_with_approval_not_signed(agreement: Agreement) -> None:
    """Too short, too long, an impossible recovery id, all zeros."""
    lease = agreement.create()
    signature = agreement.sign_approval(lease, FOREVER, agreement.earner)
    for spoilt in ("0x", signature[:-2], signature + "00", signature[:-2] + "02", "0x" + "00" * 65):
        refusal = agreement.refused("approveLeaseBySignature", lease, FOREVER, spoilt, by=agreement.stranger)
        assert refusal == not_signed(lease)


def wallet_lease(agreement: Agreement) -> tuple[Wallet, str]:
    """An Earner that is a contract, whose owner is the Earner's key, and a lease with it."""
    wallet = Wallet(agreement, owner=agreement.earner)
    return wallet, agreement.create(earner=wallet.address)


def test_given_the_earner_is_a_contract_when_it_accepts_the_signature_it_approves(agreement: Agreement) -> None:
    """ERC-1271: a Safe agrees by its owners' signatures."""
    _, lease = wallet_lease(agreement)
    approves(agreement, lease, bring(agreement, lease))


def test_given_the_earner_is_a_contract_when_it_does_not_accept_the_signature_it_reverts_with_approval_not_signed(
    agreement: Agreement,
) -> None:
    """Another key's signature, or a wallet that refuses its own."""
    wallet, lease = wallet_lease(agreement)
    assert bring(agreement, lease, by=agreement.other) == not_signed(lease)
    wallet.behave(WalletBehaviour.REFUSE)
    assert bring(agreement, lease) == not_signed(lease)


@pytest.mark.parametrize("mood", [WalletBehaviour.SHORT, WalletBehaviour.DIRTY])
def test_given_the_earner_is_a_contract_when_it_answers_with_something_else_it_reverts_with_approval_not_signed(
    agreement: Agreement, mood: WalletBehaviour
) -> None:
    """Fewer bytes than a word, or the magic value and more in the same word."""
    wallet, lease = wallet_lease(agreement)
    wallet.behave(mood)
    assert bring(agreement, lease) == not_signed(lease)


@pytest.mark.parametrize("mood", [WalletBehaviour.REVERT, WalletBehaviour.BURN])
def test_given_the_earner_is_a_contract_when_it_reverts_or_burns_all_gas_it_reverts_with_approval_not_signed(
    agreement: Agreement, mood: WalletBehaviour
) -> None:
    """Whatever it does, the answer is a refusal with its reason."""
    wallet, lease = wallet_lease(agreement)
    wallet.behave(mood)
    assert bring(agreement, lease) == not_signed(lease)
