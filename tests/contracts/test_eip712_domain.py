"""eip712Domain: EIP-5267, so that a wallet or a stranger finds what receipts and approvals are signed in."""

from __future__ import annotations

from tests.contracts.agreement import Agreement


def test_when_it_is_asked_it_names_the_domain_that_receipts_and_approvals_are_signed_in(agreement: Agreement) -> None:
    """What it answers is what the tests sign with, and the contract accepts that."""
    found = agreement.view("eip712Domain")
    domain = agreement.domain()
    assert found == (
        "0x0f",  # name, version, chainId, verifyingContract; no salt, no extensions
        domain["name"],
        domain["version"],
        domain["chainId"],
        agreement.address,
        "0x" + "00" * 32,
        [],
    )
    lease = agreement.approved()
    receipt = agreement.receipt(lease)
    assert agreement.view("verifyReceipt", receipt, agreement.sign(receipt, agreement.earner))
