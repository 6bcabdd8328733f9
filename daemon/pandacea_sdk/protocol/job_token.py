"""Job tokens: 32 random bytes in a 202 response that allow reading one computation, so that polling needs no signature.

The node stores only the token's hash; the token is sent back in the `Pandacea-Job-Token` header.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

JOB_TOKEN_HEADER: Final = "Pandacea-Job-Token"  # noqa: S105  # a header field, not a secret

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def encode_job_token(random_bytes: bytes) -> str:
    """Write 32 random bytes as a token: base64url without padding."""
    if len(random_bytes) != 32:
        raise ValueError(f"a job token is made of 32 random bytes, got {len(random_bytes)}")
    return base64.urlsafe_b64encode(random_bytes).decode().rstrip("=")


def hash_job_token(token: str) -> str:
    """Compute what the node stores: sha-256 of the token's text, as 64 hex digits."""
    return hashlib.sha256(token.encode()).hexdigest()


def job_token_matches(token: str, stored_hash: str) -> bool:
    """Tell whether `token` is the one whose hash is stored. Takes the same time for every wrong token."""
    return _TOKEN.fullmatch(token) is not None and hmac.compare_digest(hash_job_token(token), stored_hash)
