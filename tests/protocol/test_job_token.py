"""Job tokens: only the hash is kept, only the very token opens."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea_sdk.protocol.job_token import encode_job_token, hash_job_token, job_token_matches

RANDOM = st.binary(min_size=32, max_size=32)


@given(RANDOM, RANDOM)
def test_a_token_opens_its_own_hash_only(one: bytes, two: bytes) -> None:
    """The stored hash opens for its token, and for another only if that is the same."""
    token, other = encode_job_token(one), encode_job_token(two)
    stored = hash_job_token(token)
    assert token not in stored
    assert job_token_matches(token, stored)
    assert job_token_matches(other, stored) == (one == two)


@given(st.text(max_size=80))
def test_what_is_no_token_opens_nothing(text: str) -> None:
    """Odd text opens nothing, not even what is stored under its own hash."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}", text):
        assert not job_token_matches(text, "0" * 64)
        assert not job_token_matches(text, hash_job_token(text))


def test_a_token_is_made_of_32_random_bytes() -> None:
    """Fewer would be guessable."""
    with pytest.raises(ValueError, match="32 random bytes"):
        encode_job_token(b"short")
