"""The Content-Digest field (RFC 9530), with sha-256 only: the one algorithm that both sides must know."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from pandacea_sdk.protocol.problems import ProtocolError

_FIELD: Final = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


def content_digest(body: bytes) -> str:
    """Write the value of the Content-Digest field for `body`."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def parse_content_digest(value: str) -> bytes:
    """Read the 32 bytes that a Content-Digest field names.

    Raises:
        ProtocolError: `digest-malformed` when it is anything but one sha-256 member.
    """
    match = _FIELD.fullmatch(value)
    raw = base64.b64decode(match[1]) if match else b""
    # Base64 of 32 bytes has spare bits in its last digit; only the canonical spelling is accepted.
    if match is None or base64.b64encode(raw).decode() != match[1]:
        raise ProtocolError("digest-malformed", 'Content-Digest must be exactly "sha-256=:<base64 of the 32 bytes>:".')
    return raw


def check_digest(expected: bytes, actual: bytes) -> None:
    """Compare two sha-256 digests in constant time.

    Raises:
        ProtocolError: `digest-mismatch`.
    """
    if not hmac.compare_digest(expected, actual):
        raise ProtocolError(
            "digest-mismatch", "The body's sha-256 is not the one in Content-Digest; send the body that was signed."
        )
