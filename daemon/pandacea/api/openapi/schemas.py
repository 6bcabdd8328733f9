"""JSON Schema (2020-12) of the wire: answers from their TypedDicts, requests from the constants that their reader checks."""

from __future__ import annotations

import types
import typing
from typing import Any, Final, NotRequired, get_args, get_origin, get_type_hints, is_typeddict

from pandacea_sdk.protocol import execute_request, limits
from pandacea_sdk.protocol.ids import ASSET_ID, HASH32, SHA256_HEX
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.problems import PROBLEM_KINDS

Schema = JsonObject

_PLAIN: Final[dict[object, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}
_HASH: Final = f"^{HASH32.pattern}$"


def schema_of(kind: Any) -> Schema:
    """Return the schema of a type that answers use: TypedDicts (by reference), Literals, unions, lists, dicts and plain values."""
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if is_typeddict(kind):
        return {"$ref": f"#/components/schemas/{kind.__name__}"}
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is NotRequired:
        return schema_of(arguments[0])
    if origin is typing.Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    if origin in {types.UnionType, typing.Union}:
        return {"anyOf": [schema_of(argument) for argument in arguments]}
    raise TypeError(f"no schema for {kind!r}")


def object_schema(kind: type) -> Schema:
    """Return the schema of a TypedDict itself. Answers may gain members: readers must ignore those they do not know."""
    hints = get_type_hints(kind, include_extras=True)
    return {
        "type": "object",
        "description": " ".join((kind.__doc__ or "").split()),
        # Not __required_keys__: it cannot see NotRequired inside annotations that are kept as text.
        "required": sorted(name for name, hint in hints.items() if get_origin(hint) is not NotRequired),
        "properties": {name: schema_of(hint) for name, hint in hints.items()},
    }


def referenced(kind: Any) -> set[type]:
    """Return the TypedDicts that a type's schema refers to at any depth, the type itself included."""
    found: set[type] = set()
    if is_typeddict(kind):
        found.add(kind)
        for hint in get_type_hints(kind, include_extras=True).values():
            found |= referenced(hint)
    for argument in get_args(kind):
        found |= referenced(argument)
    return found


def execute_request_schema() -> Schema:
    """Return the schema of the body of POST execute. Rules that JSON Schema cannot express are in the field's description."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["lease_id", "code", "inputs"],
        "properties": {
            "lease_id": {"type": "string", "pattern": _HASH},
            "code": {
                "type": "string",
                "minLength": 1,
                "maxLength": limits.MAX_CODE_BYTES,
                "description": f"The script: at most {limits.MAX_CODE_BYTES:,} bytes of UTF-8, not only white space.",
            },
            "inputs": {
                "type": "array",
                "maxItems": limits.MAX_INPUTS,
                "description": "No asset and no variable name twice.",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["asset_id", "variable_name"],
                    "properties": {
                        "asset_id": {"type": "string", "pattern": f"^{ASSET_ID.pattern}$"},
                        "variable_name": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": limits.MAX_VARIABLE_CHARACTERS,
                            "description": "A Python identifier in NFKC form, no keyword, not __dunder__, none of "
                            f"{', '.join(sorted(execute_request.RESERVED_VARIABLES))}.",
                        },
                    },
                },
            },
            "params": {"description": "Any JSON: the script's `params`. Whole numbers within 2^53 - 1."},
            "uploads": {
                "type": "object",
                "maxProperties": limits.MAX_UPLOADS,
                "propertyNames": {"pattern": f"^{execute_request.UPLOAD_NAME.pattern}$"},
                "additionalProperties": {"type": "string", "pattern": f"^{SHA256_HEX.pattern}$"},
            },
            "product_version": {"type": "string", "pattern": _HASH},
            "mode": {"type": "string", "enum": ["mock"]},
            "seed": {
                "type": "integer",
                "minimum": 0,
                "maximum": execute_request.MAX_SEED,
                "description": "What random, numpy and torch start from; left out: derived from the computation's id.",
            },
        },
    }


def code_request_schema() -> Schema:
    """Return the schema of the body of POST code: what an approval covers."""
    execute = execute_request_schema()["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "required": ["product_id", "code", "inputs"],
        "properties": {
            "product_id": {"type": "string", "pattern": f"^{ASSET_ID.pattern}$"},
            "code": execute["code"],
            "inputs": execute["inputs"],
            "uploads": {
                "type": "array",
                "maxItems": limits.MAX_UPLOADS,
                "uniqueItems": True,
                "items": {"type": "string", "pattern": f"^{execute_request.UPLOAD_NAME.pattern}$"},
            },
            "params_schema": {"type": "object", "description": "What `params` may be in an approved run."},
            "note": {"type": "string", "description": "A word to the Earner."},
        },
    }


def problem_schema(codes: list[str]) -> Schema:
    """Return the schema of a problem whose `code` is one of `codes`."""
    return {
        "allOf": [
            {"$ref": "#/components/schemas/Problem"},
            {
                "properties": {"code": {"enum": codes}},
                "description": "; ".join(f"{code}: {PROBLEM_KINDS[code].title}" for code in codes),
            },
        ]
    }
