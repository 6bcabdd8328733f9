"""Parse JSON strictly (RFC 8259 within the limits of RFC 7493, I-JSON), so that all readers get the same value.

Refused: a byte order mark, bytes that are not UTF-8, one key twice (also after NFC normalisation), whole numbers
beyond 2^53 - 1 (below 10^21, where RFC 8785 turns to exponents), numbers that overflow, NaN and Infinity, half
surrogate pairs, nesting beyond `MAX_DEPTH`.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NoReturn

from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.problems import ProtocolError

TYPE_NAMES: Final[Mapping[type, str]] = {
    dict: "object",
    list: "array",
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}

MAX_DEPTH: Final = 32
"""Levels of nesting."""
MAX_INTEGER: Final = 2**53 - 1
"""The largest integer that every 64-bit float holds exactly, in either sign."""

# Possessive, and the closing quote optional: an unterminated string is one match to the end, so hostile bytes cost linear time.
_BRACKETS: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


class _Pairs(list[tuple[str, object]]):
    """An object's members in the order of the text, before its keys are checked."""


class _DoubtfulError(Exception):
    """A key needs the careful check."""


def _undoubted(pairs: list[tuple[str, object]]) -> JsonObject:
    """Build an object whose keys are all ASCII and different, as nearly all are."""
    found = dict(pairs)
    if len(found) != len(pairs) or not all(map(str.isascii, found)):
        raise _DoubtfulError
    return found


def parse_json(raw: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Parse JSON into dict, list, str, int, float, bool and None.

    Raises:
        ProtocolError: with the code of the first fault, and the pointer of the value where one can be given.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ProtocolError("not-utf8", f"The body is not UTF-8: byte {error.start} cannot be read. Send JSON in UTF-8.") from None
    check_depth(raw, max_depth)
    if b"\\u" not in raw:
        # Parsed a second time only where a fault has to be located.
        with suppress(_DoubtfulError, ProtocolError, json.JSONDecodeError, RecursionError):
            return _PLAIN.decode(text)
    try:
        value = _CAREFUL.decode(text)
    except json.JSONDecodeError as error:
        raise ProtocolError(
            "malformed-json", f"The body is not JSON: {error.msg} at line {error.lineno} column {error.colno}."
        ) from None
    except RecursionError:  # cannot happen below max_depth; kept because the C scanner's own limit is not ours
        raise ProtocolError("json-too-deep", f"The JSON is nested deeper than {max_depth}.") from None
    return _settle(value, "", surrogates=b"\\u" in raw)


def _decoder(pairs_hook: Callable[[list[tuple[str, object]]], object]) -> json.JSONDecoder:
    return json.JSONDecoder(object_pairs_hook=pairs_hook, parse_int=_integer, parse_float=_number, parse_constant=_constant)


def escape_pointer(token: str) -> str:
    """Escape one step of a JSON pointer (RFC 6901)."""
    return token.replace("~", "~0").replace("/", "~1")


def check_depth(raw: bytes, max_depth: int) -> None:
    """Limit the nesting by counting brackets outside strings before parsing, so that a megabyte of `[` costs next to nothing.

    The parser's own guard is the interpreter's recursion limit, which libraries raise beyond what the stack holds.

    Raises:
        ProtocolError: `json-too-deep`.
    """
    if raw.count(b"[") + raw.count(b"{") <= max_depth:
        return
    depth = 0
    for match in _BRACKETS.finditer(raw):
        first = raw[match.start()]
        if first in b"[{":
            depth += 1
            if depth > max_depth:
                raise ProtocolError("json-too-deep", f"The JSON is nested deeper than {max_depth}; flatten it.")
        elif first in b"]}":
            depth -= 1


def _integer(literal: str) -> int:
    # The length is checked first: int() of a very long literal costs quadratic time and Python refuses it in its own way.
    if len(literal) > 17 or abs(int(literal)) > MAX_INTEGER:
        raise ProtocolError("number-out-of-range", f"The integer {_short(literal)} is beyond 2^53 - 1: send it as a string.")
    return int(literal)


def _number(literal: str) -> float:
    value = float(literal) if len(literal) <= 400 else math.inf
    if not math.isfinite(value):
        raise ProtocolError("number-out-of-range", f"The number {_short(literal)} does not fit a 64-bit float.")
    if MAX_INTEGER < abs(value) < 1e21:  # RFC 8785 would write it as an integer, and a reader of integers would see another
        raise ProtocolError(
            "number-out-of-range", f"The number {_short(literal)} is a whole number beyond 2^53 - 1: send a string."
        )
    return value


def _constant(literal: str) -> NoReturn:
    raise ProtocolError("malformed-json", f"{literal} is not JSON; send null or a string instead.")


def _short(literal: str) -> str:
    return literal if len(literal) <= 24 else f"{literal[:20]}… ({len(literal)} digits)"


def _settle(value: object, pointer: str, *, surrogates: bool) -> object:
    """Turn pairs into dicts and check their keys, naming the place of a fault. The recursion is bounded by `check_depth`."""
    if isinstance(value, _Pairs):
        return _object(value, pointer, surrogates=surrogates)
    if isinstance(value, list):
        return [_settle(item, f"{pointer}/{index}", surrogates=surrogates) for index, item in enumerate(value)]
    if surrogates and isinstance(value, str):
        _check_surrogates(value, pointer)
    return value


def _object(pairs: _Pairs, pointer: str, *, surrogates: bool) -> JsonObject:
    result: JsonObject = {}
    normal: set[str] = set()
    for key, item in pairs:
        if surrogates:
            _check_surrogates(key, pointer)
        here = f"{pointer}/{escape_pointer(key)}"
        if key in result:
            raise ProtocolError("duplicate-key", f"The key {_short(key)!r} appears twice; send it once.", here)
        form = key if key.isascii() else unicodedata.normalize("NFC", key)
        if form in normal:
            raise ProtocolError(
                "name-collision", f"The key {_short(key)!r} is the same as another one after NFC normalisation.", here
            )
        normal.add(form)
        result[key] = _settle(item, here, surrogates=surrogates)
    return result


def _check_surrogates(text: str, pointer: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ProtocolError(
            "lone-surrogate",
            f"A string holds half of a surrogate pair at character {error.start}; it cannot be written as UTF-8.",
            pointer,
        ) from None


_PLAIN: Final = _decoder(_undoubted)
_CAREFUL: Final = _decoder(_Pairs)
