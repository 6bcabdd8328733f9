"""Strict JSON: whatever is accepted, every reader reads the same way; every refusal says what and where."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.strict_json import parse_json

CASES: dict[str, tuple[bytes, str, str | None]] = {
    "empty": (b"", "malformed-json", None),
    "not-json": (b"{", "malformed-json", None),
    "trailing": (b"{} {}", "malformed-json", None),
    "bom": (b"\xef\xbb\xbf{}", "malformed-json", None),
    "nan": (b"[NaN]", "malformed-json", None),
    "infinity": (b"[-Infinity]", "malformed-json", None),
    "latin-1": (b'{"a":"\xe4"}', "not-utf8", None),
    "utf-16": ('{"a":1}'.encode("utf-16"), "not-utf8", None),
    "overlong": (b'"\xc0\xaf"', "not-utf8", None),
    "utf8-surrogate": (b'"\xed\xa0\x80"', "not-utf8", None),
    "twice": (b'{"a":1,"b":{"c":1,"c":2}}', "duplicate-key", "/b/c"),
    "twice-escaped": (b'{"a":1,"\\u0061":2}', "duplicate-key", "/a"),
    "collision": ('{"é":1,"e\\u0301":2}'.encode(), "name-collision", "/e\u0301"),
    "collision-unescaped": ('{"a":[{"\u00e9":1,"e\u0301":2}]}'.encode(), "name-collision", "/a/0/e\u0301"),
    "twice-unescaped": ('{"\u00e9":1,"\u00e9":2}'.encode(), "duplicate-key", "/\u00e9"),
    "deep": (b"[" * 33 + b"]" * 33, "json-too-deep", None),
    "very-deep": (b'{"a":' * 200_000, "json-too-deep", None),
    "2^53": (b'{"n":9007199254740992}', "number-out-of-range", None),
    "-2^53": (b"-9007199254740992", "number-out-of-range", None),
    "huge": (b"1" * 100_000, "number-out-of-range", None),
    "2^53-as-a-float": (b"9007199254740992.0", "number-out-of-range", None),
    "whole-by-exponent": (b"1e20", "number-out-of-range", None),
    "overflow": (b"1e999", "number-out-of-range", None),
    "surrogate": (b'{"a":["x","\\ud800"]}', "lone-surrogate", "/a/1"),
    "surrogate-key": (b'{"\\udc00":1}', "lone-surrogate", ""),
    "nul-byte": (b'"\x00"', "malformed-json", None),
}


@pytest.mark.parametrize("name", CASES)
def test_each_fault_has_its_code_and_place(name: str) -> None:
    """One code for each kind of fault, and the JSON pointer where a value can be pointed at."""
    raw, code, pointer = CASES[name]
    with pytest.raises(ProtocolError) as caught:
        parse_json(raw)
    assert caught.value.code == code
    if pointer is not None:
        assert caught.value.pointer == pointer


FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda value: not 2**53 <= abs(value) < 1e21)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc/~", max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_good_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    """Nothing that JSON can carry exactly is changed or refused."""
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary(max_size=200) | st.text('{}[]",:\\u0123e+-.tfn ', max_size=80).map(str.encode))
def test_garbage_is_refused_never_crashed_on(raw: bytes) -> None:
    """Any bytes are either JSON of Python's own reading, or a ProtocolError."""
    try:
        value = parse_json(raw)
    except ProtocolError:
        return
    assert value == json.loads(raw)


def test_large_numbers_that_are_no_integers_anywhere_pass() -> None:
    """From 10^21 on every writer uses an exponent."""
    assert parse_json(b"[1e21, -1.5e300, 9007199254740991]") == [1e21, -1.5e300, 9007199254740991]


@pytest.mark.parametrize(
    "raw", [b'"' + b'\\"' * 500_000, b"[" * 1_000_000, b'["' * 500_000, b"1" * 1_000_000, b'"' + b"\\" * 999_999]
)
def test_a_hostile_megabyte_costs_linear_time(raw: bytes) -> None:
    """No megabyte of brackets, quotes or digits takes more than a moment."""
    start = time.process_time()
    with pytest.raises(ProtocolError):
        parse_json(raw)
    assert time.process_time() - start < 1.0
