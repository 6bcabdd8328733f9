"""Verification on the Spender's side: an honest answer passes, any single lie in it is found."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea_sdk.protocol.execute_request import ComputationInput, ExecuteRequest
from pandacea_sdk.protocol.hashing import KeySigner, sha256_hex
from pandacea_sdk.protocol.manifest import Digest, Manifest, ManifestInput, SandboxRecord, hash_manifest, replayable_members
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.receipt import Receipt, derive_computation_id
from pandacea_sdk.protocol.responses import output_members
from pandacea_sdk.protocol.verify import ExpectedResult, verify_result

CHAIN, CONTRACT, LEASE = 31337, "0x" + "cc" * 20, "0x" + "1a" * 32
REQUEST_HASH, VERSION = "0x" + "2b" * 32, "0x" + "3c" * 32
SPENDER = "0x" + "aa" * 20
EARNER = KeySigner("04" * 32)
REQUEST = ExecuteRequest(LEASE, "print(x)", (ComputationInput("a", "x"),), {"rounds": 3}, {"w": "0" * 64}, VERSION)
EXPECTED = ExpectedResult(REQUEST, REQUEST_HASH, CHAIN, SPENDER, CONTRACT)
OUTPUT, ARTIFACTS = b"loss 0.1\n", {"model_weights.pth": b"\x00\x01weights", "sub/log.txt": b""}


def manifest(output: bytes = OUTPUT, artifacts: dict[str, bytes] = ARTIFACTS, **changes: Any) -> Manifest:
    """The manifest of an honest run."""
    parts: dict[str, Any] = {
        "chain_id": CHAIN,
        "contract": CONTRACT,
        "lease_id": LEASE,
        "computation_id": derive_computation_id(CHAIN, CONTRACT, LEASE, REQUEST_HASH),
        "request_hash": REQUEST_HASH,
        "spender": SPENDER,
        "earner": EARNER.address,
        "index": 1,
        "max_computations": 3,
        "product_version": VERSION,
        "code_sha256": REQUEST.code_sha256(),
        "params_sha256": sha256_hex(REQUEST.params_bytes()),
        "uploads": dict(REQUEST.uploads),
        "inputs": [ManifestInput("a", "x", "5d" * 32)],
        "sandbox": SandboxRecord("docker", "sha256:" + "6e" * 32, "7f" * 32, {"cpus": 1.0, "memory_bytes": 2**30}, 2**60, 1),
        "node_version": "0.1.0",
        "code_policy": "any-code",
        "exit_status": 0,
        "failure": None,
        "error_type": None,
        "truncated": False,
        "output": Digest(sha256_hex(output), len(output)),
        "artifacts": {name: Digest(sha256_hex(raw), len(raw)) for name, raw in artifacts.items()},
        "retry": 0,
        "audit_head": None,
        "started_at": 1_800_000_000.25,
        "finished_at": 1_800_000_001.5,
        "blinding": bytes(range(32)),
    }
    return Manifest(**(parts | changes))


def answer(made: dict[str, Any], output: bytes = OUTPUT, artifacts: dict[str, bytes] = ARTIFACTS) -> dict[str, Any]:
    """The node's answer around a manifest, signed."""
    digest = hash_manifest(made)
    receipt = Receipt(
        CHAIN, CONTRACT, made["lease_id"], made["computation_id"], made["request_hash"], made["product_version"], digest
    )
    return {
        "success": made["exit"]["failure"] is None,
        "computation_id": made["computation_id"],
        "results": output_members(output)
        | {"artifacts": {name: base64.b64encode(raw).decode() for name, raw in artifacts.items()}},
        "manifest": made,
        "result_hash": digest,
        "receipt": dict(receipt.sign(EARNER)),
    }


def travelled(value: dict[str, Any]) -> dict[str, Any]:
    """Through JSON and back, as the Spender gets it."""
    back: dict[str, Any] = json.loads(json.dumps(value))
    return back


def test_an_honest_answer_is_verified() -> None:
    """Bytes, manifest and receipt agree: the artifacts come out, and who signed."""
    result = verify_result(travelled(answer(manifest().to_json())), EXPECTED)
    assert (result.success, result.output, dict(result.artifacts)) == (True, OUTPUT, ARTIFACTS)
    assert result.signer == EARNER.address
    assert "loss" not in repr(result), "a result must not end in a log by being printed"


def test_a_failed_run_is_verified_too() -> None:
    """A script that failed still has a manifest, a receipt and what it left."""
    made = manifest(exit_status=1, failure="script-error", error_type="ValueError").to_json()
    assert not verify_result(travelled(answer(made)), EXPECTED).success


@given(st.binary(max_size=100), st.dictionaries(st.text("abc./", min_size=1, max_size=8), st.binary(max_size=50), max_size=3))
def test_output_of_any_bytes_survives(output: bytes, artifacts: dict[str, bytes]) -> None:
    """Output that is no UTF-8 travels exactly, beside its readable form."""
    made = manifest(output, artifacts).to_json()
    result = verify_result(travelled(answer(made, output, artifacts)), EXPECTED)
    assert (result.output, dict(result.artifacts)) == (output, artifacts)


def put(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set one member, deep inside."""

    def change(body: dict[str, Any]) -> None:
        for name in path[:-1]:
            body = body[name]
        body[path[-1]] = value

    return change


def drop(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda body: body.__delitem__(name)


LIES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "output": (put("results", "output", value="loss 0.2\n"), "bytes-mismatch"),
    "artifact": (put("results", "artifacts", "model_weights.pth", value="AAAA"), "bytes-mismatch"),
    "artifact-not-base64": (put("results", "artifacts", "model_weights.pth", value="*"), "bad-answer"),
    "artifact-a-number": (put("results", "artifacts", "model_weights.pth", value=1), "bad-answer"),
    "artifact-added": (put("results", "artifacts", "evil", value=""), "bytes-mismatch"),
    "artifacts-gone": (put("results", "artifacts", value={}), "bytes-mismatch"),
    "success": (put("success", value=False), "bad-manifest"),
    "success-text": (put("success", value="yes"), "bad-answer"),
    "manifest-edited": (put("manifest", "retry", value=1), "bad-manifest"),
    "manifest-not-json": (put("manifest", "retry", value=2**70), "bad-manifest"),
    "result-hash": (put("result_hash", value="0x" + "00" * 32), "bad-manifest"),
    "no-manifest": (drop("manifest"), "bad-answer"),
    "no-results": (drop("results"), "bad-answer"),
    "no-receipt": (drop("receipt"), "bad-receipt"),
    "receipt-null": (put("receipt", value=None), "bad-receipt"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lie_in_the_answer_is_found(name: str) -> None:
    """Bytes, flags, hashes and receipt can each not be changed alone."""
    change, code = LIES[name]
    body = copy.deepcopy(answer(manifest().to_json()))
    change(body)
    with pytest.raises(ProtocolError) as caught:
        verify_result(travelled(body), EXPECTED)
    assert caught.value.code == code


FOREIGN: dict[str, Any] = {
    "format": "pandacea-manifest/2",
    "chain_id": 1,
    "contract": "0x" + "dd" * 20,
    "lease_id": "0x" + "99" * 32,
    "computation_id": "0x" + "99" * 32,
    "request_hash": "0x" + "99" * 32,
    "spender": "0x" + "bb" * 20,
    "code_sha256": "9" * 64,
    "params_sha256": "9" * 64,
    "uploads": {},
    "product_version": "0x" + "99" * 32,
    "inputs": [{"asset_id": "b", "variable_name": "x", "commitment": "5d" * 32}],
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_well_signed_answer_to_another_request_is_refused(name: str) -> None:
    """The Earner signs honestly, but about another lease, script, input or request: not what was asked for."""
    with pytest.raises(ProtocolError) as caught:
        verify_result(travelled(answer(manifest().to_json() | {name: FOREIGN[name]})), EXPECTED)
    assert caught.value.code == "bad-manifest"


@pytest.mark.parametrize("name", ["format", "inputs", "uploads", "chain_id", "product_version", "exit", "output", "artifacts"])
@pytest.mark.parametrize("value", [None, 1, "x", [], [1], {}])
def test_a_manifest_of_odd_shape_is_refused_never_crashed_on(name: str, value: Any) -> None:
    """Members of the wrong type are a typed error."""
    made = manifest().to_json() | {name: value}
    body = answer(manifest().to_json()) | {"manifest": made, "result_hash": hash_manifest(made)}
    with pytest.raises(ProtocolError):
        verify_result(travelled(body), EXPECTED)


def test_a_result_whose_request_is_not_known_is_held_against_its_id() -> None:
    """The id binds chain, contract, lease and request; what only the request tells is then the Earner's word, and that is said."""
    known = manifest().computation_id
    by_id = ExpectedResult(None, REQUEST_HASH, CHAIN, SPENDER, CONTRACT, known)
    assert not verify_result(travelled(answer(manifest().to_json())), by_id).request_compared
    assert verify_result(travelled(answer(manifest().to_json())), EXPECTED).request_compared
    for expected in (
        ExpectedResult(None, REQUEST_HASH, CHAIN, SPENDER, CONTRACT, "0x" + "99" * 32),
        ExpectedResult(None, "0x" + "99" * 32, CHAIN, SPENDER, CONTRACT, known),
        ExpectedResult(None, REQUEST_HASH, CHAIN, "0x" + "99" * 20, CONTRACT, known),
        ExpectedResult(None, REQUEST_HASH, CHAIN + 1, SPENDER, CONTRACT, known),
        ExpectedResult(None, REQUEST_HASH, CHAIN, SPENDER, "0x" + "99" * 20, known),
    ):
        with pytest.raises(ProtocolError) as caught:
            verify_result(travelled(answer(manifest().to_json())), expected)
        assert caught.value.code == "bad-manifest"


def test_artifacts_beyond_the_cap_are_refused_before_they_are_decoded() -> None:
    """The Spender's memory is theirs: the sum of sizes is looked at first."""
    with pytest.raises(ProtocolError) as caught:
        verify_result(
            travelled(answer(manifest().to_json())), ExpectedResult(REQUEST, REQUEST_HASH, CHAIN, SPENDER, CONTRACT, max_bytes=4)
        )
    assert caught.value.code == "bad-answer"


def test_a_replay_compares_all_but_time_and_blinding() -> None:
    """Two honest runs differ in their times and their blinding, in nothing else; their hashes tell nothing about the result."""
    first, second = manifest().to_json(), manifest(started_at=1.0, finished_at=2.0, blinding=b"\xff" * 32).to_json()
    assert replayable_members(first) == replayable_members(second)
    assert hash_manifest(first) != hash_manifest(second)
    assert {"not_replayed", "blinding"} & replayable_members(first).keys() == set()


def test_integers_beyond_two_to_the_53_travel_as_strings() -> None:
    """The seed has 64 bits: RFC 8785 numbers do not."""
    assert manifest().to_json()["sandbox"]["seed"] == str(2**60)
