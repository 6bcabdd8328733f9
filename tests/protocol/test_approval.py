"""Approvals that anyone may bring: signed here, read by the contract, a wallet and the node alike."""

from __future__ import annotations

import hypothesis.strategies as st
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given

from pandacea_sdk.protocol.approval import SignedApproval, parse_approval_call, sign_approval
from pandacea_sdk.protocol.contract import lease_agreement
from pandacea_sdk.protocol.hashing import KeySigner

KEY = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"
CONTRACT = "0x" + "c0" * 20
LEASE = "0x" + "1e" * 32


def test_a_wallet_signs_the_same_bytes() -> None:
    """eth_account's own EIP-712, as an oracle: same digest, same signature."""
    domain = {"name": "Pandacea LeaseAgreement", "version": "1", "chainId": 31337, "verifyingContract": CONTRACT}
    types = {"Approval": [{"name": "leaseId", "type": "bytes32"}, {"name": "deadline", "type": "uint256"}]}
    message = encode_typed_data(domain, types, {"leaseId": bytes.fromhex(LEASE[2:]), "deadline": 1_900_000_000})
    expected = bytes(Account.from_key(KEY).sign_message(message).signature)
    approval = sign_approval(KeySigner(KEY), 31337, CONTRACT, LEASE, 1_900_000_000)
    assert approval.signature == expected
    assert approval.signer == KeySigner(KEY).address


@given(st.integers(0, 2**256 - 1), st.binary(max_size=200))
def test_the_call_is_what_the_abi_encodes_and_reads_back(deadline: int, signature: bytes) -> None:
    """With signatures of any length, as contract wallets have them."""
    approval = SignedApproval(31337, CONTRACT, LEASE, deadline, signature)
    call = approval.encode_call()
    assert call == lease_agreement().encode_call("approveLeaseBySignature", LEASE, deadline, signature)
    assert parse_approval_call(call, 31337, CONTRACT) == approval


@given(st.data())
def test_calldata_that_is_anything_else_is_no_approval(data: st.DataObject) -> None:
    """Cut, grown or changed in its layout: None, never an exception and never another reading of the same bytes."""
    call = sign_approval(KeySigner(KEY), 31337, CONTRACT, LEASE).encode_call()
    place = data.draw(st.integers(0, len(call) - 1))
    spoilt = data.draw(st.sampled_from([call[:place], call + b"\0", call[:place] + bytes([call[place] ^ 1]) + call[place + 1 :]]))
    found = parse_approval_call(spoilt, 31337, CONTRACT)
    assert found is None or (found.encode_call() == spoilt and found.signer != KeySigner(KEY).address)


def test_a_signature_that_no_key_made_has_no_signer() -> None:
    """A contract wallet's signature, or zeros: the node cannot tell whose it is."""
    for signature in (b"", b"\1" * 64, b"\0" * 65, b"\1" * 130):
        assert SignedApproval(31337, CONTRACT, LEASE, 0, signature).signer is None
