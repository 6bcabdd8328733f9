"""The execute request: each fault has its own code and the pointer of its field; what is good survives the trip."""

from __future__ import annotations

import json
import keyword
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea.domain.limits import MAX_CODE_BYTES as NODE_MAX_CODE_BYTES
from pandacea_sdk.protocol.execute_request import (
    ComputationInput,
    ExecuteRequest,
    check_execute_request,
    parse_execute_request,
)
from pandacea_sdk.protocol.limits import MAX_CODE_BYTES
from pandacea_sdk.protocol.problems import PROBLEM_KINDS, ProtocolError

LEASE = "0x" + "1a" * 32


def body(**changes: Any) -> dict[str, Any]:
    """A good body with some members changed; `...` drops one."""
    good: dict[str, Any] = {
        "lease_id": LEASE,
        "code": "print(x)",
        "inputs": [{"asset_id": "earner-data-asset-123", "variable_name": "x"}],
    }
    return {name: value for name, value in (good | changes).items() if value is not ...}


def one_input(**changes: Any) -> dict[str, Any]:
    return body(inputs=[{"asset_id": "a", "variable_name": "x"} | changes])


FAULTS: dict[str, tuple[Any, str, str]] = {
    "not-an-object": ([], "wrong-type", ""),
    "null": (None, "wrong-type", ""),
    "unknown-field": (body(extra=1), "unknown-field", "/extra"),
    "unknown-field-escaped": (body(**{"a/b~": 1}), "unknown-field", "/a~1b~0"),
    "no-lease": (body(lease_id=...), "missing-field", "/lease_id"),
    "no-code": (body(code=...), "missing-field", "/code"),
    "no-inputs": (body(inputs=...), "missing-field", "/inputs"),
    "lease-number": (body(lease_id=7), "wrong-type", "/lease_id"),
    "lease-null": (body(lease_id=None), "wrong-type", "/lease_id"),
    "lease-short": (body(lease_id="0x1a"), "bad-lease-id", "/lease_id"),
    "lease-upper": (body(lease_id="0x" + "1A" * 32), "bad-lease-id", "/lease_id"),
    "lease-newline": (body(lease_id=LEASE + "\n"), "bad-lease-id", "/lease_id"),
    "code-number": (body(code=1), "wrong-type", "/code"),
    "code-empty": (body(code=" \n"), "code-empty", "/code"),
    "code-too-large": (body(code="ä" * (MAX_CODE_BYTES // 2) + "a"), "code-too-large", "/code"),
    "inputs-object": (body(inputs={}), "wrong-type", "/inputs"),
    "input-string": (body(inputs=["a"]), "wrong-type", "/inputs/0"),
    "input-unknown-field": (one_input(path="/etc"), "unknown-field", "/inputs/0/path"),
    "input-missing-field": (body(inputs=[{"asset_id": "a"}]), "missing-field", "/inputs/0/variable_name"),
    "asset-number": (one_input(asset_id=1), "wrong-type", "/inputs/0/asset_id"),
    "asset-path": (one_input(asset_id="../secret"), "bad-asset-id", "/inputs/0/asset_id"),
    "asset-dot": (one_input(asset_id=".hidden"), "bad-asset-id", "/inputs/0/asset_id"),
    "asset-long": (one_input(asset_id="a" * 65), "bad-asset-id", "/inputs/0/asset_id"),
    "asset-newline": (one_input(asset_id="a\n"), "bad-asset-id", "/inputs/0/asset_id"),
    "name-number": (one_input(variable_name=1), "wrong-type", "/inputs/0/variable_name"),
    "name-empty": (one_input(variable_name=""), "bad-variable-name", "/inputs/0/variable_name"),
    "name-digit": (one_input(variable_name="1x"), "bad-variable-name", "/inputs/0/variable_name"),
    "name-dotted": (one_input(variable_name="a.b"), "bad-variable-name", "/inputs/0/variable_name"),
    "name-keyword": (one_input(variable_name="lambda"), "bad-variable-name", "/inputs/0/variable_name"),
    "name-long": (one_input(variable_name="x" * 65), "bad-variable-name", "/inputs/0/variable_name"),
    "name-ligature": (one_input(variable_name="ﬁt"), "name-not-normalised", "/inputs/0/variable_name"),
    "name-params": (one_input(variable_name="params"), "reserved-variable-name", "/inputs/0/variable_name"),
    "name-progress": (one_input(variable_name="pandacea_progress"), "reserved-variable-name", "/inputs/0/variable_name"),
    "name-dunder": (one_input(variable_name="__builtins__"), "reserved-variable-name", "/inputs/0/variable_name"),
    "asset-twice": (
        body(inputs=[{"asset_id": "a", "variable_name": "x"}, {"asset_id": "a", "variable_name": "y"}]),
        "duplicate-asset",
        "/inputs/1/asset_id",
    ),
    "name-twice": (
        body(inputs=[{"asset_id": "a", "variable_name": "x"}, {"asset_id": "b", "variable_name": "x"}]),
        "duplicate-variable",
        "/inputs/1/variable_name",
    ),
    "many-inputs": (
        body(inputs=[{"asset_id": f"a{n}", "variable_name": f"x{n}"} for n in range(65)]),
        "too-many-inputs",
        "/inputs",
    ),
    "uploads-array": (body(uploads=[]), "wrong-type", "/uploads"),
    "upload-path": (body(uploads={"../w": "0" * 64}), "bad-upload", "/uploads/..~1w"),
    "upload-digest": (body(uploads={"w": "0" * 63}), "bad-upload", "/uploads/w"),
    "upload-digest-type": (body(uploads={"w": 1}), "wrong-type", "/uploads/w"),
    "uploads-many": (body(uploads={f"w{n}": "0" * 64 for n in range(17)}), "bad-upload", "/uploads"),
    "version": (body(product_version="2"), "bad-product-version", "/product_version"),
    "version-type": (body(product_version=2), "wrong-type", "/product_version"),
    "mode": (body(mode="fast"), "bad-mode", "/mode"),
    "mode-live": (body(mode="live"), "bad-mode", "/mode"),
    "seed": (body(seed=2**32), "bad-seed", "/seed"),
    "seed-negative": (body(seed=-1), "bad-seed", "/seed"),
    "seed-fraction": (body(seed=1.5), "wrong-type", "/seed"),
    "seed-truth": (body(seed=True), "wrong-type", "/seed"),
    "seed-text": (body(seed="7"), "wrong-type", "/seed"),
    "mode-type": (body(mode=True), "wrong-type", "/mode"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_has_its_code_and_pointer(name: str) -> None:
    """Every bad field is refused with its own code, and the pointer says where."""
    value, code, pointer = FAULTS[name]
    with pytest.raises(ProtocolError) as caught:
        parse_execute_request(json.dumps(value).encode())
    assert (caught.value.code, caught.value.pointer) == (code, pointer)
    assert 400 <= PROBLEM_KINDS[code].status < 500
    assert caught.value.detail.isascii(), "a hostile name must not reach a log or a terminal as it is"


@pytest.mark.parametrize("name", sorted(keyword.kwlist))
def test_no_keyword_is_a_variable(name: str) -> None:
    """All of Python's keywords are refused."""
    with pytest.raises(ProtocolError) as caught:
        check_execute_request(one_input(variable_name=name))
    assert caught.value.code == "bad-variable-name"


def test_100_kb_of_code_means_the_same_on_both_sides() -> None:
    """The largest script is 102,400 bytes of UTF-8, whatever JSON escapes it into."""
    assert MAX_CODE_BYTES == NODE_MAX_CODE_BYTES == 102_400
    code = "\n" * (MAX_CODE_BYTES - 1) + "x"
    assert check_execute_request(body(code=code)).code == code


def test_optional_members_may_be_left_out() -> None:
    """A minimal body is enough."""
    request = check_execute_request(body())
    assert (request.params, request.uploads, request.product_version, request.mode) == ({}, {}, None, "live")
    assert request.seed is None
    seeded = check_execute_request(body(seed=2**32 - 1))
    assert (seeded.seed, seeded.to_json()["seed"]) == (2**32 - 1, 2**32 - 1)
    with pytest.raises(ProtocolError) as caught:
        check_execute_request(body(lease_id=..., mode="mock"))
    assert caught.value.code == "missing-field", "a rehearsal needs a lease, too"


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name) and name != "params")
FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: not 2**53 <= abs(value) < 1e21)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(
    code=st.text(min_size=1, max_size=200).filter(lambda code: bool(code.strip())),
    names=st.lists(NAMES, max_size=5, unique=True),
    params=JSON,
    uploads=st.dictionaries(NAMES, st.from_regex(r"[0-9a-f]{64}", fullmatch=True), max_size=3),
    version=st.none() | st.just("0x" + "ab" * 32),
    mock=st.booleans(),
)
def test_a_good_request_survives_the_trip(
    code: str, names: list[str], params: Any, uploads: dict[str, str], version: str | None, mock: bool
) -> None:
    """What the SDK writes the node reads, member by member; the digests of code and params agree."""
    inputs = tuple(ComputationInput(f"asset-{name}", name) for name in names)
    sent = ExecuteRequest(LEASE, code, inputs, params, uploads, version, "mock" if mock else "live")
    read = parse_execute_request(sent.to_bytes())
    assert read == sent
    assert read.code_sha256() == sent.code_sha256()
    assert json.loads(read.params_bytes()) == params


def test_every_code_of_the_table_is_a_client_or_server_error() -> None:
    """Codes are kebab-case, statuses 4xx or 5xx; only the SDK's own have none."""
    for code, kind in PROBLEM_KINDS.items():
        assert code == code.lower()
        assert " " not in code
        assert 400 <= kind.status < 600 or kind.status == 0
        assert kind.title
