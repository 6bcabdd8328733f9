"""Recovery: with the fast library or without it, the same answer to every signature, good or hostile."""

from __future__ import annotations

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pandacea_sdk.protocol import hashing
from pandacea_sdk.protocol.hashing import KeySigner, abi_word, eip191_digest, hex32, recover_address
from tests.prerequisites import skip_or_fail

KEYS = st.binary(min_size=32, max_size=32).filter(lambda raw: 0 < int.from_bytes(raw, "big") < 2**255)


@given(KEYS, st.binary(max_size=100))
def test_a_signature_recovers_to_its_signer(key: bytes, message: bytes) -> None:
    """For any key and message."""
    signer = KeySigner(key)
    digest = eip191_digest(message)
    assert recover_address(digest, signer.sign_digest(digest)) == signer.address


@given(
    st.binary(min_size=32, max_size=32), st.binary(max_size=70) | st.binary(min_size=64, max_size=64).map(lambda raw: raw + b"\x1b")
)
def test_both_libraries_agree_on_anything(digest: bytes, signature: bytes) -> None:
    """Coincurve and eth-keys recover the same address, or both none, from any bytes."""
    if importlib.util.find_spec("coincurve") is None:
        skip_or_fail("coincurve is not installed: pip install 'pandacea[daemon]'")
    found = recover_address(digest, signature)
    with pytest.MonkeyPatch.context() as without:
        without.setattr(hashing, "FastPublicKey", None)
        assert recover_address(digest, signature) == found


@given(st.binary(max_size=500))
def test_both_libraries_hash_alike(data: bytes) -> None:
    """Keccak-256 by safe-pysha3 and by eth-hash's own choice."""
    if importlib.util.find_spec("sha3") is None:
        skip_or_fail("safe-pysha3 is not installed: pip install 'pandacea[daemon]'")
    found = hashing.keccak256(data)
    with pytest.MonkeyPatch.context() as without:
        without.setattr(hashing, "fast_keccak", None)
        assert hashing.keccak256(data) == found


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        bytes(64),
        bytes(65),
        bytes(64) + b"\x1b",
        b"\xff" * 64 + b"\x1b",
        bytes(32) + b"\x01" * 32 + b"\x1b",
        b"\x01" * 65,
        bytes(66),
    ],
)
def test_what_is_no_signature_recovers_to_nobody(signature: bytes) -> None:
    """Wrong length, zero, out of range, wrong v: None, never an exception."""
    assert recover_address(bytes(32), signature) is None


def test_words_are_abi_words() -> None:
    """Integers and addresses padded on the left, 32 bytes as they are, anything else refused."""
    assert abi_word(1) == bytes(31) + b"\x01"
    assert abi_word("0x" + "ab" * 20) == bytes(12) + b"\xab" * 20
    assert abi_word(b"\x01" * 32) == b"\x01" * 32
    for bad in ("0xab", b"\x01" * 31):
        with pytest.raises(ValueError, match="ABI word"):
            abi_word(bad)
    with pytest.raises(ValueError, match="32 bytes"):
        hex32(b"")
