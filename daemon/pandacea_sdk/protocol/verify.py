"""Verify a node's response: bytes against manifest, manifest against request, manifest against receipt.

The node is not trusted: whatever it sends may be malformed, too large, or about another computation. The steps of `verify_result`:

1. the response has the shape of a result, and the receipt is signed by the signer it names (`parse_receipt`);
2. `result_hash` is the hash of the manifest;
3. the manifest says what was asked for, and its computation id follows from chain, contract, lease and request;
4. `success` agrees with the manifest's `exit`;
5. the receipt is for this very result;
6. output and artifacts have the digests and sizes that the manifest states.

Whether the signer is the lease's Earner or operator, only the chain can say.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pandacea_sdk.protocol.execute_request import ExecuteRequest
from pandacea_sdk.protocol.hashing import sha256_hex
from pandacea_sdk.protocol.ids import HASH32
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.protocol.limits import MIB
from pandacea_sdk.protocol.manifest import MANIFEST_FORMAT, hash_manifest
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.receipt import derive_computation_id, parse_receipt

MAX_ARTIFACTS_BYTES: Final = 512 * MIB


@dataclass(frozen=True, slots=True)
class ExpectedResult:
    """What the Spender knows without the node. `contract` is None when it was learnt from the node itself.

    `request` None: only the computation's id is known. It binds chain, contract, lease and the signed request, so another result does
    not match it; what that request asked for (script, params, uploads, inputs) is then the Earner's claim.
    """

    request: ExecuteRequest | None
    request_hash: str
    chain_id: int
    spender: str
    contract: str | None = None
    computation_id: str | None = None
    max_bytes: int = MAX_ARTIFACTS_BYTES


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """What of a result was compared with the contract.

    `contract_version`: "v1" or "v0"; `compared`: "spender", "earner", "signer" and, with v1, "commitment"; `committed`: the result hash
    on the chain, None while there is none (v0 has none).
    """

    contract_version: str
    compared: tuple[str, ...]
    committed: str | None


@dataclass(frozen=True, slots=True)
class VerifiedResult:
    """A result whose parts agree. `signer` still has to be compared with the lease's Earner or operator on the chain.

    `request_compared`: whether it was also compared with what was asked for, not only with the computation's id. `on_chain`: what was
    compared with the contract; None where no endpoint was asked.
    """

    success: bool
    computation_id: str
    result_hash: str
    signer: str
    contract: str
    request_compared: bool
    manifest: JsonMapping = field(repr=False)
    output: bytes = field(repr=False)
    artifacts: Mapping[str, bytes] = field(repr=False)
    on_chain: ChainCheck | None = None


def verify_result(answer: Any, expected: ExpectedResult) -> VerifiedResult:
    """Verify the response to `expected.request` or, where that is not known, the result of `expected.computation_id`.

    An answer without the artifacts' bytes (it has `artifact_sizes`) is verified but for them: compare each file with the manifest.

    Raises:
        ProtocolError: `bad-answer` (it does not have the shape of a result), `bad-manifest` (it is about something else than was asked),
            `bytes-mismatch` (output or an artifact is not what the manifest says), `bad-receipt`. The message names the member.
    """
    # 1. the shape, and who signed
    manifest, results = _mapping(answer, "manifest"), _mapping(answer, "results")
    computation, digest = _text(answer, "computation_id"), _text(answer, "result_hash")
    if not isinstance(answer.get("success"), bool):
        raise _answer("success is not true or false")
    receipt, signer = parse_receipt(answer.get("receipt"))
    contract = expected.contract or receipt.contract
    # 2. the hash
    try:
        if hash_manifest(manifest) != digest:
            raise _manifest("its sha-256 is not result_hash")
    except (ValueError, TypeError, RecursionError):
        raise _manifest("it cannot be written as RFC 8785 JSON") from None
    # 3. what was asked for
    _check_manifest(manifest, expected, contract, computation)
    # 4. success
    exit_ = _mapping(manifest, "exit")
    if answer["success"] != (exit_.get("failure") is None):
        raise _manifest("success contradicts its exit")
    # 5. the receipt
    claimed = (
        receipt.chain_id,
        receipt.contract,
        receipt.lease_id,
        receipt.computation_id,
        receipt.request_hash,
        receipt.product_version,
    )
    wanted = (expected.chain_id, contract, manifest["lease_id"], computation, expected.request_hash, manifest["product_version"])
    if claimed != wanted or receipt.result_hash != digest:
        raise ProtocolError(
            "bad-receipt", "The receipt is for another result than the one it came with; keep both and ask the Earner."
        )
    # 6. the bytes
    output, artifacts = _bytes(results, manifest, expected.max_bytes)
    compared = expected.request is not None
    return VerifiedResult(answer["success"], computation, digest, signer, contract, compared, manifest, output, artifacts)


def decode_base64(text: object, what: str) -> bytes:
    """Decode standard base64 strictly; `what` names the member in the message.

    Raises:
        ProtocolError: `bad-answer`.
    """
    if not isinstance(text, str):
        raise _answer(f"{what} is not base64 text")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise _answer(f"{what} is not base64") from None


def _check_manifest(manifest: JsonMapping, expected: ExpectedResult, contract: str, computation: str) -> None:
    lease_id = manifest.get("lease_id")
    facts: JsonObject = {
        "format": MANIFEST_FORMAT,
        "contract": contract,
        "request_hash": expected.request_hash,
        "spender": expected.spender.lower(),
        "computation_id": computation if expected.computation_id is None else expected.computation_id,
    }
    if expected.request is not None:
        facts |= _facts(expected.request)
    for name, value in facts.items():
        if manifest.get(name) != value:
            raise _manifest(f"its {name} is not the one that was asked for")
    if str(manifest.get("chain_id")) != str(expected.chain_id):
        raise _manifest("its chain_id is another")
    if manifest["computation_id"] != computation or not isinstance(lease_id, str) or not HASH32.fullmatch(lease_id):
        raise _manifest("it speaks of another computation than the answer, or of no lease")
    if computation != derive_computation_id(expected.chain_id, contract, lease_id, expected.request_hash):
        raise _manifest("its computation_id does not follow from chain, contract, lease and request")
    if not isinstance(manifest.get("product_version"), str):
        raise _manifest("its product_version is missing")
    inputs = manifest.get("inputs")
    named = [_named(item) for item in inputs] if isinstance(inputs, list) else None
    if expected.request is not None and named != [(item.asset_id, item.variable_name) for item in expected.request.inputs]:
        raise _manifest("its inputs are not the ones that were asked for")


def _facts(request: ExecuteRequest) -> JsonObject:
    """List what a manifest must say about a request."""
    facts: JsonObject = {
        "code_sha256": request.code_sha256(),
        "params_sha256": sha256_hex(request.params_bytes()),
        "uploads": dict(request.uploads),
    }
    if request.lease_id is not None:
        facts["lease_id"] = request.lease_id
    if request.product_version is not None:
        facts["product_version"] = request.product_version
    return facts


def _bytes(results: JsonMapping, manifest: JsonMapping, max_bytes: int) -> tuple[bytes, dict[str, bytes]]:
    stated = _mapping(manifest, "artifacts")
    if "artifact_sizes" in results:
        _check_sizes(_mapping(results, "artifact_sizes"), stated)
        artifacts: JsonMapping = {}
        stated = {}
    else:
        artifacts = _mapping(results, "artifacts")
    if artifacts.keys() != stated.keys():
        raise ProtocolError("bytes-mismatch", "The artifacts are not the ones that the manifest lists.")
    if sum(len(text) for text in artifacts.values() if isinstance(text, str)) * 3 // 4 > max_bytes:
        raise _answer(f"the artifacts are larger than {max_bytes:,} bytes")
    encoded = results.get("output_base64")
    output = (
        decode_base64(encoded, "output_base64")
        if encoded is not None
        else _text(results, "output").encode("utf-8", "surrogatepass")
    )
    _check_bytes("the output", output, manifest.get("output"))
    found = {}
    for name, text in artifacts.items():
        found[name] = decode_base64(text, f"the artifact {name!a}")
        _check_bytes(f"the artifact {name!a}", found[name], stated[name])
    return output, found


def _check_sizes(sizes: JsonMapping, stated: JsonMapping) -> None:
    if sizes != {name: one.get("size") if isinstance(one, Mapping) else None for name, one in stated.items()}:
        raise ProtocolError("bytes-mismatch", "The artifacts' names and sizes are not the ones that the manifest lists.")


def _check_bytes(what: str, raw: bytes, stated: object) -> None:
    if not isinstance(stated, Mapping) or stated.get("size") != len(raw) or stated.get("sha256") != sha256_hex(raw):
        raise ProtocolError("bytes-mismatch", f"The bytes of {what} are not the ones that the manifest names.")


def _named(item: object) -> tuple[object, object] | None:
    return (item.get("asset_id"), item.get("variable_name")) if isinstance(item, Mapping) else None


def _mapping(value: object, name: str) -> JsonMapping:
    member = value.get(name) if isinstance(value, Mapping) else None
    if not isinstance(member, Mapping):
        raise _answer(f"{name} is missing or not an object")
    return member


def _text(value: JsonMapping, name: str) -> str:
    member = value.get(name)
    if not isinstance(member, str):
        raise _answer(f"{name} is missing or not a string")
    return member


def _answer(why: str) -> ProtocolError:
    return ProtocolError("bad-answer", f"The node's answer is not a result: {why}.")


def _manifest(why: str) -> ProtocolError:
    return ProtocolError("bad-manifest", f"The manifest cannot be trusted: {why}. Keep the answer and ask the Earner.")
