"""The contract as bytes: what is encoded is what the chain reads, and what cannot be read says so instead of guessing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_utils.crypto import keccak
from hypothesis import given
from hypothesis import strategies as st

from pandacea_sdk.protocol.contract import (
    ContractEvent,
    Revert,
    derive_lease_id,
    hash_product_id,
    lease_agreement,
    lease_agreement_v0,
)
from pandacea_sdk.protocol.deployment import Deployment

V1 = lease_agreement()
A, B = "0x" + "a1" * 20, "0x" + "b2" * 20


def topic(text: str) -> str:
    """Compute topic0 from its definition."""
    return "0x" + keccak(text=text).hex()


@pytest.mark.parametrize(
    "signature",
    [
        "LeaseCreated(bytes32,address,address,uint256)",
        "LeaseTerms(bytes32,bytes32,uint64,uint32)",
        "LeaseApproved(bytes32)",
        "ResultCommitted(bytes32,bytes32,bytes32)",
        "LeaseExecuted(bytes32)",
        "LeaseCancelled(bytes32)",
        "LeaseFinalized(bytes32,address,uint256)",
        "DisputeRaised(bytes32,address,address,string,uint256)",
        "DisputeResolved(bytes32,bool,uint256)",
    ],
)
def test_events_have_the_signatures_of_the_protocol(signature: str) -> None:
    """The first version's six, word for word, and the three that are new: leases are found by these hashes."""
    assert V1.event_topic(signature.partition("(")[0]) == topic(signature)


@pytest.mark.parametrize("name", ["LeaseCreated", "LeaseApproved", "LeaseExecuted"])
def test_the_first_versions_events_are_ours(name: str) -> None:
    """One decoder reads both."""
    assert lease_agreement_v0().event_topic(name) == V1.event_topic(name)


def test_the_id_of_a_lease_is_the_hash_of_its_terms_word_by_word() -> None:
    """Nine words, by hand."""
    words = [
        (31337).to_bytes(32, "big"),
        bytes.fromhex(A[2:]).rjust(32, b"\0"),
        bytes.fromhex(B[2:]).rjust(32, b"\0"),
        bytes.fromhex(A[2:]).rjust(32, b"\0"),
        keccak(b"diabetes"),
        (5).to_bytes(32, "big"),
        (2_000_000_000).to_bytes(32, "big"),
        (3).to_bytes(32, "big"),
        bytes.fromhex(B[2:]).rjust(32, b"\0"),
        (7).to_bytes(32, "big"),
    ]
    expected = "0x" + keccak(b"".join(words)).hex()
    assert (
        derive_lease_id(
            chain_id=31337,
            contract=A,
            spender=B,
            earner=A,
            data_product_id=hash_product_id("diabetes"),
            price=5,
            expires_at=2_000_000_000,
            max_computations=3,
            arbiter=B,
            nonce=7,
        )
        == expected
    )


def test_calldata_is_selector_and_words() -> None:
    """By the definition of the ABI."""
    assert V1.encode_call("approveLease", "0x" + "07" * 32) == keccak(text="approveLease(bytes32)")[:4] + b"\7" * 32
    with pytest.raises(ValueError, match="names 2 functions"):
        V1.encode_call("createLease", A, "0x" + "07" * 32, 5)  # its signature must be given
    with pytest.raises(ValueError, match="none"):
        V1.encode_call("mint")


def test_a_revert_is_named_with_its_values_and_its_meaning() -> None:
    """And reads as a sentence."""
    data = keccak(text="WrongStatus(bytes32,uint8)")[:4] + b"\7" * 32 + (5).to_bytes(32, "big")
    revert = V1.decode_revert(data)
    assert (revert.name, revert.values) == ("WrongStatus", {"leaseId": "0x" + "07" * 32, "status": "finalized"})
    assert str(revert).startswith("WrongStatus(leaseId=0x0707")
    assert str(revert).endswith("from which this step does not lead anywhere.")


def test_every_error_of_ours_has_a_meaning() -> None:
    """The sentence a caller is shown comes from the contract's own documentation."""
    inherited = {"EnforcedPause", "ExpectedPause", "OwnableInvalidOwner", "OwnableUnauthorizedAccount"}
    inherited |= {"ReentrancyGuardReentrantCall", "ERC5267ExtensionsNotSupported"}
    silent = {
        item["name"]
        for item in V1.abi
        if item["type"] == "error" and not any(k.startswith(item["name"] + "(") for k in V1._notices)
    }
    assert silent <= inherited


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", Revert("Unknown", {"data": "0x"}, "the call was reverted without a reason")),
        (b"\x12\x34", Revert("Unknown", {"data": "0x1234"}, "")),
        (keccak(text="TooLate(bytes32,uint256)")[:4] + b"\1", None),
        (bytes.fromhex("08c379a0") + b"\xff" * 64, None),
    ],
)
def test_revert_data_that_cannot_be_read_is_shown_as_bytes(data: bytes, expected: Revert | None) -> None:
    """Also when it begins like a known error."""
    found = V1.decode_revert(data)
    assert found == (expected or Revert("Unknown", {"data": "0x" + data.hex()}, ""))


def test_solidity_s_own_errors_are_read() -> None:
    """Error(string) and Panic(uint256) are decoded."""
    text = bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + (2).to_bytes(32, "big") + b"no".ljust(32, b"\0")
    assert V1.decode_revert(text) == Revert("Error", {"reason": "no"}, "")
    assert V1.decode_revert(bytes.fromhex("4e487b71") + (0x11).to_bytes(32, "big")).values == {"code": 0x11}


@given(st.binary(max_size=200))
def test_no_revert_data_breaks_the_reader(data: bytes) -> None:
    """Whatever a contract or an endpoint sends."""
    assert isinstance(V1.decode_revert(data), Revert)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=5), st.binary(max_size=300), st.booleans())
def test_no_log_breaks_the_reader(topics: list[bytes], data: bytes, known: bool) -> None:
    """An event, or none; never an exception."""
    if known:
        topics = [bytes.fromhex(V1.event_topic("DisputeRaised")[2:]), *topics]
    assert isinstance(V1.decode_event(topics, data), ContractEvent | None)


def test_a_log_with_a_topic_too_few_is_none_of_ours() -> None:
    """The same name with other indices is another event."""
    assert V1.decode_event([bytes.fromhex(V1.event_topic("LeaseApproved")[2:])], b"\7" * 32) is None


def test_statuses_are_those_of_the_node() -> None:
    """The same words on both sides; the contract's zero means there is no lease."""
    from pandacea.domain.lease import LeaseStatus as NodeStatus

    wrong_status = keccak(text="WrongStatus(bytes32,uint8)")[:4] + b"\7" * 32
    found = [V1.decode_revert(wrong_status + number.to_bytes(32, "big")).values["status"] for number in range(9)]
    assert found == ["none", *NodeStatus]


def test_an_answer_that_is_too_short_is_refused() -> None:
    """Never a half-read lease."""
    with pytest.raises(ValueError, match="are not"):
        V1.decode_result("getLease", b"\0" * 64)
    with pytest.raises(ValueError, match="status"):
        V1.decode_result("getLease", b"\0" * 18 * 32 + (9).to_bytes(32, "big"))


# ---------------------------------------------------------------------------------------------- deployment records

GOOD: dict[str, Any] = {"chain_id": 1, "address": A, "deploy_block": 0, "code_hash": "0x" + "c3" * 32}


def test_a_record_survives_a_file(tmp_path: Path) -> None:
    """Written, read, the same; upper-case hex is read as lower-case."""
    record = Deployment.from_json(json.dumps(GOOD | {"address": A.upper().replace("0X", "0x")}))
    record.write(tmp_path / "deployment.json")
    assert Deployment.read(tmp_path / "deployment.json") == record == Deployment(**GOOD)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "must be JSON"),
        ("[]", "exactly"),
        (json.dumps({**GOOD, "more": 1}), "exactly"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "code_hash"}), "exactly"),
        (json.dumps(GOOD | {"chain_id": 0}), "chain_id must be"),
        (json.dumps(GOOD | {"chain_id": True}), "chain_id must be"),
        (json.dumps(GOOD | {"deploy_block": -1}), "deploy_block must be"),
        (json.dumps(GOOD | {"deploy_block": "5"}), "deploy_block must be"),
        (json.dumps(GOOD | {"address": A[:-1]}), "address must be"),
        (json.dumps(GOOD | {"code_hash": None}), "code_hash must be"),
    ],
)
def test_a_bad_record_is_refused_with_what_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    """And with the file's name."""
    path = tmp_path / "deployment.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=words) as caught:
        Deployment.read(path)
    assert str(path) in str(caught.value)
