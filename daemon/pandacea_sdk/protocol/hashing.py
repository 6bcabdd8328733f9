"""Hashes, secp256k1 signatures, ABI words and lower-case hex: what the other modules of the protocol are built on."""

from __future__ import annotations

import hashlib
from typing import Final, Protocol

from eth_hash.auto import keccak as slow_keccak
from eth_keys.datatypes import PrivateKey, Signature
from eth_keys.exceptions import BadSignature
from eth_utils.exceptions import ValidationError

# Used for every signed request: the node installs both (extra "daemon"), the SDK works without them.
try:
    from coincurve import PublicKey as FastPublicKey
except ImportError:
    FastPublicKey = None  # type: ignore[assignment,misc]  # None in place of a class: it is not installed
try:
    from sha3 import keccak_256 as fast_keccak
except ImportError:
    fast_keccak = None

HALF_ORDER: Final = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0
"""Half the order of secp256k1: the largest `s` of a signature in its canonical form (EIP-2)."""


class Signer(Protocol):
    """Signs 32 bytes with secp256k1: a key in memory, a keystore, or an object of the caller's own."""

    @property
    def address(self) -> str:
        """The signer's address: `0x` + 40 hex digits, in any case."""
        ...

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign 32 bytes; return the 65 bytes r || s || v with v 27 or 28 and s in the lower half (EIP-2)."""
        ...


class KeySigner:
    """Signs with a private key in memory. Its representation never shows the key."""

    __slots__ = ("_key", "address")

    def __init__(self, private_key: bytes | str) -> None:
        """`private_key`: 32 bytes, or 64 hex digits with or without `0x`.

        Raises:
            ValueError: it is not a secp256k1 private key. The message does not repeat it.
        """
        try:
            raw = bytes.fromhex(private_key.removeprefix("0x")) if isinstance(private_key, str) else bytes(private_key)
            self._key = PrivateKey(raw)
            self.address = self._key.public_key.to_address()
        except (ValueError, ValidationError):
            raise ValueError("not a private key: 32 bytes, as 64 hex digits, are needed") from None

    def __repr__(self) -> str:
        return f"KeySigner({self.address})"

    @property
    def private_key(self) -> bytes:
        """The 32 bytes, for a library that signs by itself."""
        return self._key.to_bytes()

    def sign_digest(self, digest: bytes) -> bytes:
        """Sign as `Signer` says, deterministically (RFC 6979)."""
        raw = self._key.sign_msg_hash(digest).to_bytes()
        return raw[:64] + bytes([raw[64] + 27])


def keccak256(data: bytes) -> bytes:
    """Compute Keccak-256 as Ethereum uses it (not SHA3-256)."""
    return slow_keccak(data) if fast_keccak is None else fast_keccak(data).digest()


def sha256_hex(data: bytes) -> str:
    """Compute sha-256 as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def eip191_digest(message: bytes) -> bytes:
    """Compute the 32 bytes that personal_sign signs (EIP-191, version 0x45)."""
    return keccak256(b"\x19Ethereum Signed Message:\n" + str(len(message)).encode() + message)


def recover_address(digest: bytes, signature: bytes) -> str | None:
    """Recover the address, in lower case, whose key made `signature` over `digest`; None when there is none.

    Only the canonical form is accepted: 65 bytes, v 27 or 28, s in the lower half (EIP-2), as OpenZeppelin's ECDSA demands on-chain.
    """
    if len(signature) != 65 or signature[64] not in (27, 28) or int.from_bytes(signature[32:64], "big") > HALF_ORDER:
        return None
    plain = signature[:64] + bytes([signature[64] - 27])
    if FastPublicKey is None:
        return _recover_slowly(digest, plain)
    try:
        # Not through eth-keys' objects, which are slow: this runs for every signed request.
        point = FastPublicKey.from_signature_and_message(plain, digest, hasher=None).format(compressed=False)
    except ValueError:
        return None
    return "0x" + keccak256(point[1:])[-20:].hex()


def _recover_slowly(digest: bytes, plain: bytes) -> str | None:
    try:
        return Signature(plain).recover_public_key_from_msg_hash(digest).to_address()
    except (BadSignature, ValidationError):
        return None


def abi_word(value: int | str | bytes) -> bytes:
    """Encode one 32-byte ABI word: an integer or address padded on the left, or bytes32 given as 32 bytes or `0x` hex."""
    if isinstance(value, int):
        return value.to_bytes(32, "big")
    raw = bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else value
    if len(raw) not in (20, 32):
        raise ValueError(f"an ABI word is 32 bytes, or an address of 20; got {len(raw)} bytes")
    return raw.rjust(32, b"\0")


def hash_abi_words(*values: int | str | bytes) -> str:
    """Compute keccak256(abi.encode(...)) of values that are one word each, as bytes32 in hex."""
    return hex32(keccak256(b"".join(map(abi_word, values))))


def hex32(raw: bytes) -> str:
    """Write 32 bytes as `0x` + 64 lower-case hex digits."""
    if len(raw) != 32:
        raise ValueError(f"32 bytes are needed, got {len(raw)}")
    return "0x" + raw.hex()
