"""Receipts: the EIP-712 hash is the one that any wallet and the contract compute; a signature speaks for one result only."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account import Account
from eth_account.messages import encode_typed_data
from hypothesis import given
from hypothesis import strategies as st

from pandacea_sdk.protocol.hashing import KeySigner, keccak256
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.receipt import Receipt, derive_computation_id, parse_receipt

KEY = "02" * 32
HASHES = st.binary(min_size=32, max_size=32).map(lambda raw: "0x" + raw.hex())
ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
RECEIPTS = st.builds(Receipt, st.integers(1, 2**53), ADDRESSES, HASHES, HASHES, HASHES, HASHES, HASHES)
RECEIPT = Receipt(31337, "0x" + "cc" * 20, *("0x" + f"{n}{n}" * 32 for n in range(1, 6)))


def typed_data(receipt: Receipt) -> dict[str, Any]:
    """The same receipt as eth_signTypedData takes it."""
    return {
        "types": {
            "EIP712Domain": [
                {"name": "name", "type": "string"},
                {"name": "version", "type": "string"},
                {"name": "chainId", "type": "uint256"},
                {"name": "verifyingContract", "type": "address"},
            ],
            "Receipt": [
                {"name": name, "type": "bytes32"}
                for name in ("leaseId", "computationId", "requestHash", "productVersion", "resultHash")
            ],
        },
        "primaryType": "Receipt",
        "domain": {
            "name": "Pandacea LeaseAgreement",
            "version": "1",
            "chainId": receipt.chain_id,
            "verifyingContract": receipt.contract,
        },
        "message": {
            "leaseId": receipt.lease_id,
            "computationId": receipt.computation_id,
            "requestHash": receipt.request_hash,
            "productVersion": receipt.product_version,
            "resultHash": receipt.result_hash,
        },
    }


@given(RECEIPTS)
def test_a_wallet_signs_the_same_bytes(receipt: Receipt) -> None:
    """eth-account, signing the typed data, makes our very signature."""
    wallet = Account.from_key(KEY).sign_message(encode_typed_data(full_message=typed_data(receipt)))
    signed = receipt.sign(KeySigner(KEY))
    assert signed["signature"] == "0x" + bytes(wallet.signature).hex()


@given(RECEIPTS)
def test_a_receipt_reads_back(receipt: Receipt) -> None:
    """Reading what was signed gives the receipt and its signer."""
    signer = KeySigner(KEY)
    assert parse_receipt(receipt.sign(signer)) == (receipt, signer.address)


@pytest.mark.parametrize("name", [*asdict(RECEIPT), "signer", "signature"])
def test_a_receipt_with_one_member_changed_or_gone_is_refused(name: str) -> None:
    """No member can be changed, dropped or given another type."""
    signed: dict[str, Any] = dict(RECEIPT.sign(KeySigner(KEY)))
    other: dict[str, Any] = dict(replace(RECEIPT, chain_id=1, contract="0x" + "dd" * 20).sign(KeySigner("03" * 32)))
    changed = other[name] if name in {"chain_id", "contract", "signer", "signature"} else "0x" + "ff" * 32
    for bad in (signed | {name: changed}, signed | {name: None}, {k: v for k, v in signed.items() if k != name}):
        with pytest.raises(ProtocolError) as caught:
            parse_receipt(bad)
        assert caught.value.code == "bad-receipt"


@given(st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers()))
def test_garbage_is_refused_never_crashed_on(value: Any) -> None:
    """Whatever an Earner sends in its place is refused."""
    with pytest.raises(ProtocolError):
        parse_receipt(value)


@given(st.integers(1, 2**53), ADDRESSES, HASHES, HASHES)
def test_a_computation_id_is_what_solidity_computes(chain_id: int, contract: str, lease: str, request: str) -> None:
    """keccak256(abi.encode(uint256, address, bytes32, bytes32)), by an independent encoder."""
    encoded = encode(
        ["uint256", "address", "bytes32", "bytes32"], [chain_id, contract, bytes.fromhex(lease[2:]), bytes.fromhex(request[2:])]
    )
    assert derive_computation_id(chain_id, contract, lease, request) == "0x" + keccak256(encoded).hex()
