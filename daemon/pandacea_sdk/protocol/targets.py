"""Request targets in one plain form, so that what is signed, what is routed and what a proxy sees are the same bytes."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from pandacea_sdk.protocol.problems import ProtocolError

MAX_TARGET_CHARACTERS: Final = 4096

# RFC 3986 pchar, "/" and "?", and nothing else: no fragment, no backslash, no space, no raw non-ASCII.
_TARGET: Final = re.compile(r"(/[A-Za-z0-9\-._~!$&'()*+,;=:@%/]*)(?:\?([A-Za-z0-9\-._~!$&'()*+,;=:@%/?]*))?")
_ESCAPE: Final = re.compile(r"%(..?)?")
_NEEDLESS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_HEX: Final = re.compile(r"[0-9A-F]{2}")


@lru_cache(maxsize=512)  # called twice for each signed request; holds at most 2 MB
def split_target(target: str) -> tuple[str, str | None]:
    """Split a request target in origin form (RFC 9112, section 3.2.1) into its raw path and, when there is a `?`, its raw query.

    Raises:
        ProtocolError: `target-too-long`, or `bad-target` for anything that could be read in two ways: absolute form, dot segments,
            empty segments, escapes of plain characters, of slashes or of control characters, escapes in lower-case hex.
    """
    if len(target) > MAX_TARGET_CHARACTERS:
        raise ProtocolError("target-too-long", f"The request target is longer than {MAX_TARGET_CHARACTERS} characters.")
    match = _TARGET.fullmatch(target)
    if match is None:
        raise _bad("it must begin with / and hold only the characters of RFC 3986")
    path, query = match[1], match[2]
    _check_escapes(target)
    segments = path[1:].split("/")
    if any(segment in {".", ".."} for segment in segments):
        raise _bad("it has a dot segment")
    if "" in segments[:-1]:
        raise _bad("it has an empty segment (//)")
    if "%" in path:
        _check_decoded(path)
    return path, query


def _check_escapes(target: str) -> None:
    for match in _ESCAPE.finditer(target):
        digits = match[1] or ""
        if not _HEX.fullmatch(digits):
            raise _bad(f"%{digits} is not an escape in upper-case hex")
        if int(digits, 16) in _NEEDLESS:
            raise _bad(f"%{digits} escapes a character that stands for itself")


def _check_decoded(path: str) -> None:
    raw = unquote_to_bytes(path)
    if raw.count(b"/") != path.count("/") or b"\\" in raw:
        raise _bad("it escapes a slash or a backslash")
    if any(byte < 0x20 or byte == 0x7F for byte in raw):
        raise _bad("it escapes a control character")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("its escapes are not UTF-8") from None


def _bad(why: str) -> ProtocolError:
    return ProtocolError("bad-target", f"The request target is not in its plain form: {why}.")
