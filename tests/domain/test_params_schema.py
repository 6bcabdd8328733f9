"""Params of an approved script: a closed part of JSON Schema, and never a program."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea.domain.params_schema import NO_PARAMS, BadSchema, check_schema, find_violation

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "integer", "minimum": 1}, [1, 5, 2.0], [0, 1.5, "1", True, None]),
        ({"type": "number", "maximum": 1}, [1, -0.5], [1.1, "x", False]),
        ({"type": "string", "maxLength": 2}, ["", "ab"], ["abc", 1, None]),
        ({"type": "boolean"}, [True, False], [0, 1, "true"]),
        ({"type": "null"}, [None], [0, "", False]),
        ({"enum": ["adam", 1, None]}, ["adam", 1, 1.0, None], ["ADAM", True, 0]),
        ({"const": {"a": [1]}}, [{"a": [1]}, {"a": [1.0]}], [{"a": [True]}, {"a": [1], "b": 1}, None]),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 2, "minItems": 1}, [[1], [1, 2]], [[], [1, 2, 3], ["1"], {}]),
        (
            {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": [1]}}, "required": ["a"]},
            [{"a": 1}, {"a": 1, "b": 1}],
            [{}, {"a": 1, "c": 2}, {"a": "1"}, [], None],
        ),
        (NO_PARAMS, [{}], [{"f": "exec"}, None, []]),
    ],
)
def test_values_are_taken_or_not(schema: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    """Types are exact: true is not a number, and no member goes unnamed."""
    check_schema(schema)
    assert [value for value in good if find_violation(schema, value) is not None] == []
    assert [value for value in bad if find_violation(schema, value) is None] == []


@pytest.mark.parametrize(
    "schema",
    [
        {},
        [],
        None,
        {"type": "text"},
        {"type": ["string", "null"]},
        {"type": "string"},
        {"type": "string", "maxLength": 100_000},
        {"type": "string", "maxLength": True},
        {"type": "string", "pattern": "(a+)+$", "maxLength": 9},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "required": ["a"]},
        {"type": "object", "patternProperties": {}},
        {"type": "array", "items": {"type": "integer"}},
        {"type": "array", "maxItems": 3},
        {"enum": []},
        {"enum": [1], "type": "integer"},
        {"anyOf": [{}]},
        {"$ref": "#"},
    ],
)
def test_what_leaves_room_for_a_program_is_no_schema_here(schema: Any) -> None:
    """Open strings, open objects, and whatever is not understood."""
    with pytest.raises(BadSchema):
        check_schema(schema)


def test_a_schema_has_so_many_parts() -> None:
    """Deep or wide, it ends."""
    deep: dict[str, Any] = {"type": "integer"}
    for _ in range(50):
        deep = {"type": "array", "items": deep, "maxItems": 1}
    wide = {"type": "object", "properties": {str(number): {"type": "integer"} for number in range(1000)}}
    for schema in (deep, wide):
        with pytest.raises(BadSchema):
            check_schema(schema)


@given(JSON)
def test_any_json_is_taken_or_refused_never_an_error(value: Any) -> None:
    """As schema: checked or BadSchema. As value: a sentence or None."""
    try:
        check_schema(value)
    except BadSchema:
        pass
    else:
        assert find_violation(value, value) is None or isinstance(find_violation(value, value), str)
    for schema in (NO_PARAMS, {"type": "array", "items": {"type": "number"}, "maxItems": 5}, {"const": value}):
        find_violation(schema, value)
    assert find_violation({"const": value}, value) is None
