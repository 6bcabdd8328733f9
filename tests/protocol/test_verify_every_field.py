"""Every field of an answer, its manifest, its receipt and of the request, changed by itself: caught, and the broken link is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pandacea_sdk.protocol.execute_request import ComputationInput, ExecuteRequest
from pandacea_sdk.protocol.hashing import sha256_hex
from pandacea_sdk.protocol.manifest import ManifestInput, hash_manifest
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.receipt import derive_computation_id
from pandacea_sdk.protocol.strict_json import parse_json
from pandacea_sdk.protocol.verify import ExpectedResult, verify_result
from tests.protocol.test_verify import CHAIN, CONTRACT, EXPECTED, FOREIGN, LEASE, OUTPUT, REQUEST, answer, manifest, travelled

Path = tuple[str | int, ...]

OTHER_HASH: Final = "0x" + "4c" * 32
OTHER_REQUEST: Final = ExecuteRequest(
    LEASE, "print(y)", (ComputationInput("b", "y"),), {"rounds": 4}, {"v": "1" * 64}, "0x" + "5e" * 32
)
OTHER_OUTPUT: Final = b"\xff another"
OTHER_ARTIFACTS: Final = {"model_weights.pth": b"other weights", "sub/log.txt": b"x"}


def honest() -> dict[str, Any]:
    """The answer that was asked for."""
    return travelled(answer(manifest().to_json()))


def other() -> dict[str, Any]:
    """An honest answer to another request of the same lease: everything that may differ does."""
    made = manifest(
        OTHER_OUTPUT,
        OTHER_ARTIFACTS,
        computation_id=derive_computation_id(CHAIN, CONTRACT, LEASE, OTHER_HASH),
        request_hash=OTHER_HASH,
        index=2,
        product_version=OTHER_REQUEST.product_version,
        code_sha256=OTHER_REQUEST.code_sha256(),
        params_sha256=sha256_hex(OTHER_REQUEST.params_bytes()),
        uploads=dict(OTHER_REQUEST.uploads),
        inputs=[ManifestInput("b", "y", "6d" * 32)],
        exit_status=1,
        failure="script-error",
        error_type="ValueError",
        truncated=True,
        retry=1,
        audit_head="7a" * 32,
        started_at=1.0,
        finished_at=2.0,
        blinding=bytes(32),
    ).to_json()
    return travelled(answer(made, OTHER_OUTPUT, OTHER_ARTIFACTS))


def paths(value: Any, here: Path = ()) -> Iterator[Path]:
    """Every member below a JSON value, objects and lists themselves among them."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        yield (*here, name)
        yield from paths(member, (*here, name))


# What people read beside the bytes that are verified: `output_base64` stands where it differs. What cannot be a lie is not a field.
FIELDS: Final = list(paths(honest()))


def find(value: Any, path: Path) -> Any:
    for name in path:
        value = value[name]
    return value


def put(body: dict[str, Any], path: Path, value: Any) -> None:
    find(body, path[:-1])[path[-1]] = value


def links(path: Path) -> set[str]:
    """The problem codes that name the link which a change of this member breaks."""
    if path[0] == "manifest":
        return {"bad-manifest"} if len(path) > 1 else {"bad-manifest", "bad-answer"}
    if path[0] == "receipt":
        return {"bad-receipt"}
    if path[0] == "results":
        return {"bytes-mismatch", "bad-answer"}
    return {"bad-manifest", "bad-answer"}


def require_caught(body: dict[str, Any], path: Path) -> None:
    """Verification refuses the answer, for the link that was broken."""
    with pytest.raises(ProtocolError) as caught:
        verify_result(travelled(body), EXPECTED)
    assert caught.value.code in links(path), caught.value


def double(value: Any) -> Any:
    """The value twice over, in its own type where that has such a thing."""
    if isinstance(value, bool | dict) or value is None or value in (0, ""):
        return [value, value]
    return value * 2 if value != [] else [[]]


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: ".".join(map(str, path)))
def test_a_field_removed_doubled_or_another_computations_is_caught(path: Path) -> None:
    """Each by itself; a member that is the same in both answers cannot be swapped."""
    body = honest()
    find(body, path[:-1]).pop(path[-1])
    require_caught(body, path)

    body = honest()
    put(body, path, double(find(body, path)))
    require_caught(body, path)

    body, elsewhere = honest(), other()
    try:
        swapped = find(elsewhere, path)
    except (KeyError, IndexError):
        return
    if swapped != find(body, path):
        put(body, path, swapped)
        require_caught(body, path)


@settings(deadline=None)  # the machine may be busy
@given(
    st.sampled_from(FIELDS),
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=70) | st.just([]) | st.just({}),
)
def test_a_field_changed_to_anything_is_caught(path: Path, value: Any) -> None:
    """Whatever takes its place, of its own type or another's."""
    body = honest()
    before = find(body, path)
    if value == before and type(value) is type(before):
        return
    put(body, path, value)
    require_caught(body, path)


@pytest.mark.parametrize("path", [path for path in FIELDS if isinstance(path[-1], str)], ids=lambda path: ".".join(map(str, path)))
def test_a_name_that_stands_twice_is_refused_before_anything_is_believed(path: Path) -> None:
    """Two parsers would take one each."""
    body, marker = honest(), "f1e1d"
    holder = find(body, path[:-1])
    put(body, path[:-1], {marker: 0, **holder}) if path[:-1] else body.update({marker: 0})
    text = json.dumps(body).replace(f'"{marker}": 0', f"{json.dumps(path[-1])}: 0")
    with pytest.raises(ProtocolError) as caught:
        parse_json(text.encode())
    assert caught.value.code == "duplicate-key"


ASKED: Final[dict[str, ExpectedResult]] = {
    **{
        f"request.{name}": replace(EXPECTED, request=replace(REQUEST, **{name: getattr(OTHER_REQUEST, name)}))
        for name in ("code", "inputs", "params", "uploads", "product_version")
    },
    "request.lease_id": replace(EXPECTED, request=replace(REQUEST, lease_id="0x" + "99" * 32)),
    "request_hash": replace(EXPECTED, request_hash=OTHER_HASH),
    "chain_id": replace(EXPECTED, chain_id=CHAIN + 1),
    "spender": replace(EXPECTED, spender="0x" + "bb" * 20),
    "contract": replace(EXPECTED, contract="0x" + "dd" * 20),
    "computation_id": replace(EXPECTED, computation_id=derive_computation_id(CHAIN, CONTRACT, LEASE, OTHER_HASH)),
}


@pytest.mark.parametrize("name", ASKED)
def test_an_honest_answer_to_another_request_is_caught(name: str) -> None:
    """Each part of what was asked for by itself, with an answer that is whole and well signed."""
    with pytest.raises(ProtocolError) as caught:
        verify_result(honest(), ASKED[name])
    assert caught.value.code == "bad-manifest"


CLAIMS: Final = {
    "earner", "index", "max_computations", "sandbox", "node_version", "code_policy", "truncated", "retry", "audit_head",
    "not_replayed", "blinding",
}  # fmt: skip
"""What the Earner states and the Spender cannot know: signed, so it can be held against the Earner."""


def test_each_member_of_a_manifest_is_compared_or_is_a_claim_that_is_signed() -> None:
    """Signed anew by the Earner, a member that the Spender can know is caught all the same; a new member has to be put on one side."""
    elsewhere, uncaught = other()["manifest"], set()
    for name in honest()["manifest"]:
        here = honest()["manifest"][name]
        made = honest()["manifest"] | {name: elsewhere[name] if elsewhere[name] != here else FOREIGN.get(name, "0x" + "99" * 20)}
        body = answer(made)
        body["manifest"], body["result_hash"], body["success"] = made, hash_manifest(made), True
        try:
            verify_result(travelled(body), EXPECTED)
        except ProtocolError:
            continue
        uncaught.add(name)
    assert uncaught == CLAIMS


def test_the_honest_answers_are_honest() -> None:
    """Else nothing above would mean anything."""
    assert verify_result(honest(), EXPECTED).output == OUTPUT
    expected = ExpectedResult(OTHER_REQUEST, OTHER_HASH, CHAIN, EXPECTED.spender, CONTRACT)
    assert verify_result(other(), expected).output == OTHER_OUTPUT
