"""Schemas of the params that an approval covers: a small, closed part of JSON Schema (draft 2020-12), stricter than it.

An object takes only members that are named, and a string has an `enum`, a `const` or a `maxLength`: a parameter must not bring an
approved script another program.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, TypeGuard

from pandacea_sdk.protocol.json_types import JsonObject

MAX_DEPTH: Final = 8
"""Levels that a schema may be nested."""
MAX_NODES: Final = 256
"""Parts that a schema may have."""
MAX_STRING: Final = 256
"""Characters that a string parameter may have."""

MAX_SCHEMA_BYTES: Final = 16_384
"""Bytes of a schema as JSON: the Earner reads all of it before approving."""
MAX_FREE_BYTES: Final = 4096
"""Bytes of the sender's choosing that the params of a schema may carry."""
BYTES_A_CHARACTER: Final = 3
"""A Unicode character has 21 bits."""
BYTES_A_NUMBER: Final = 8
"""A number is a double."""

KEYWORDS: Final[dict[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"maxLength"}),
    "number": frozenset({"minimum", "maximum"}),
    "integer": frozenset({"minimum", "maximum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}
ANYWHERE: Final = frozenset({"description"})

NO_PARAMS: Final[JsonObject] = {"type": "object", "properties": {}}
"""The schema of a script that was submitted without one: an empty object."""


class BadSchema(ValueError):
    """A schema that is not understood; `pointer` is the RFC 6901 path of the fault."""

    def __init__(self, pointer: str, sentence: str) -> None:
        """Take the path of the fault, and a sentence that says what is wrong and what is taken."""
        self.pointer = pointer
        super().__init__(sentence)


def check_schema(schema: Any) -> None:
    """Check a schema before a script is approved with it.

    Raises:
        BadSchema: it uses a keyword that is not known here, or leaves a string without a limit.
    """
    nodes = [0]
    _check(schema, "", 0, nodes)
    if len(json.dumps(schema)) > MAX_SCHEMA_BYTES:
        raise BadSchema("", f"A schema may have {MAX_SCHEMA_BYTES:,} bytes as JSON: the Earner reads all of it.")
    if (free := count_free_bytes(schema)) > MAX_FREE_BYTES:
        raise BadSchema(
            "",
            f"The params it admits could carry {free:,} bytes of the sender's choosing, and at most {MAX_FREE_BYTES:,} are taken: "
            "shorten `maxLength` and `maxItems`, or send the values as an upload.",
        )


def count_free_bytes(schema: JsonObject) -> int:
    """Count the bytes that params of a checked schema can carry at most, beyond what the schema itself fixes.

    A string counts 3 bytes a character, a number 8, a choice or a boolean 1; an array its items, as many as it may have. Names and the
    order of members carry nothing: they are fixed.
    """
    if "const" in schema:
        return 0
    if "enum" in schema:
        return 1
    match schema["type"]:
        case "object":
            parts = schema.get("properties", {})
            optional = len(parts) - len(set(schema.get("required", ())))
            return sum(map(count_free_bytes, parts.values())) + optional // 8 + bool(optional % 8)
        case "array":
            return int(schema["maxItems"]) * max(count_free_bytes(schema["items"]), 1)
        case "string":
            return int(schema["maxLength"]) * BYTES_A_CHARACTER
        case "number" | "integer":
            return BYTES_A_NUMBER
        case "boolean":
            return 1
    return 0


def _check(schema: object, pointer: str, depth: int, nodes: list[int]) -> None:
    nodes[0] += 1
    if nodes[0] > MAX_NODES or depth > MAX_DEPTH:
        raise BadSchema(pointer, f"A schema may have {MAX_NODES} parts, nested {MAX_DEPTH} deep.")
    if not isinstance(schema, dict):
        raise BadSchema(pointer, "A schema is an object with a `type`, an `enum` or a `const`.")
    if "const" in schema or "enum" in schema:
        _check_fixed(schema, pointer)
        return
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in KEYWORDS:
        raise BadSchema(f"{pointer}/type", f"`type` is one of {', '.join(KEYWORDS)}.")
    unknown = set(schema) - KEYWORDS[kind] - ANYWHERE - {"type"}
    if unknown:
        allowed = ", ".join(sorted(KEYWORDS[kind])) or "no other keyword"
        raise BadSchema(f"{pointer}/{min(unknown)}", f"A schema of type {kind} takes {allowed}.")
    _CHECKS[kind](schema, pointer, depth, nodes)


def _check_fixed(schema: JsonObject, pointer: str) -> None:
    if set(schema) - ANYWHERE not in ({"const"}, {"enum"}):
        raise BadSchema(pointer, "`const` and `enum` stand alone.")
    if "enum" in schema and (not isinstance(schema["enum"], list) or not 0 < len(schema["enum"]) <= MAX_NODES):
        raise BadSchema(f"{pointer}/enum", f"`enum` is a list of 1 to {MAX_NODES} values.")


def _check_object(schema: JsonObject, pointer: str, depth: int, nodes: list[int]) -> None:
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, dict):
        raise BadSchema(f"{pointer}/properties", "`properties` is an object.")
    if not isinstance(required, list) or not all(isinstance(name, str) and name in properties for name in required):
        raise BadSchema(f"{pointer}/required", "`required` is a list of names that `properties` has.")
    if schema.get("additionalProperties", False) is not False:
        raise BadSchema(f"{pointer}/additionalProperties", "`additionalProperties` is always false here: name every member.")
    for name, part in properties.items():
        _check(part, f"{pointer}/properties/{_escaped(name)}", depth + 1, nodes)


def _check_array(schema: JsonObject, pointer: str, depth: int, nodes: list[int]) -> None:
    if "items" not in schema or not _is_count(schema.get("maxItems")):
        raise BadSchema(pointer, "An array has `items` and `maxItems`.")
    if not _is_count(schema.get("minItems", 0)):
        raise BadSchema(f"{pointer}/minItems", "`minItems` is a whole number, 0 or more.")
    _check(schema["items"], f"{pointer}/items", depth + 1, nodes)


def _check_string(schema: JsonObject, pointer: str, _depth: int, _nodes: list[int]) -> None:
    longest = schema.get("maxLength")
    if not isinstance(longest, int) or not _is_count(longest) or longest > MAX_STRING:
        raise BadSchema(
            pointer, f"A string has a `maxLength` of at most {MAX_STRING}, or is an `enum`: a parameter must not be a program."
        )


def _check_number(schema: JsonObject, pointer: str, _depth: int, _nodes: list[int]) -> None:
    for word in ("minimum", "maximum"):
        if word in schema and not _is_number(schema[word]):
            raise BadSchema(f"{pointer}/{word}", f"`{word}` is a number.")


def _check_plain(_schema: JsonObject, _pointer: str, _depth: int, _nodes: list[int]) -> None:
    return


_CHECKS: Final[dict[str, Callable[[JsonObject, str, int, list[int]], None]]] = {
    "object": _check_object,
    "array": _check_array,
    "string": _check_string,
    "number": _check_number,
    "integer": _check_number,
    "boolean": _check_plain,
    "null": _check_plain,
}


def find_violation(schema: JsonObject, value: object, pointer: str = "") -> str | None:
    """Say why a value does not fit a checked schema, with the pointer of the fault; None when it fits."""
    where = pointer or "/"
    if "const" in schema:
        return None if _same(value, schema["const"]) else f"params{where} must be the one value that was approved"
    if "enum" in schema:
        if any(_same(value, allowed) for allowed in schema["enum"]):
            return None
        return f"params{where} must be one of the values that were approved"
    if not _is_of(schema["type"], value):
        return f"params{where} must be of type {schema['type']}"
    return _VIOLATIONS[schema["type"]](schema, value, pointer)


def _string_violation(schema: JsonObject, value: str, pointer: str) -> str | None:
    return None if len(value) <= schema["maxLength"] else f"params{pointer or '/'} may have {schema['maxLength']} characters"


def _number_violation(schema: JsonObject, value: float, pointer: str) -> str | None:
    where = pointer or "/"
    if value < schema.get("minimum", value):
        return f"params{where} must be {schema['minimum']} or more"
    if value > schema.get("maximum", value):
        return f"params{where} must be {schema['maximum']} or less"
    return None


def _no_violation(_schema: JsonObject, _value: object, _pointer: str) -> str | None:
    return None


def _object_violation(schema: JsonObject, value: JsonObject, pointer: str) -> str | None:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            return f"params{pointer}/{_escaped(name)} is missing"
    for name, part in value.items():
        if name not in properties:
            return f"params{pointer or '/'} takes only: {', '.join(properties) or 'nothing'}"
        found = find_violation(properties[name], part, f"{pointer}/{_escaped(name)}")
        if found is not None:
            return found
    return None


def _array_violation(schema: JsonObject, value: list[object], pointer: str) -> str | None:
    if not schema.get("minItems", 0) <= len(value) <= schema["maxItems"]:
        return f"params{pointer or '/'} must have {schema.get('minItems', 0)} to {schema['maxItems']} items"
    for index, part in enumerate(value):
        found = find_violation(schema["items"], part, f"{pointer}/{index}")
        if found is not None:
            return found
    return None


_VIOLATIONS: Final[dict[str, Callable[[JsonObject, Any, str], str | None]]] = {
    "object": _object_violation,
    "array": _array_violation,
    "string": _string_violation,
    "number": _number_violation,
    "integer": _number_violation,
    "boolean": _no_violation,
    "null": _no_violation,
}


def _is_of(kind: str, value: object) -> bool:
    if kind == "integer":
        return _is_number(value) and float(value).is_integer()
    if kind == "number":
        return _is_number(value)
    kinds: dict[str, type] = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    return isinstance(value, kinds[kind])


def _same(left: object, right: object) -> bool:
    """Compare as JSON does: 1 equals 1.0, and true does not equal 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_same(a, b) for a, b in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    return bool(left == right)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
