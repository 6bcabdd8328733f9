"""Ethereum addresses as people write them: EIP-55 puts a checksum into the case of their letters."""

from __future__ import annotations

from pandacea_sdk.protocol.hashing import keccak256


def to_checksum_address(address: str) -> str:
    """An address (`0x` and 40 hex digits, in any case) with the upper and lower case that EIP-55 gives it."""
    digits = address[2:].lower()
    digest = keccak256(digits.encode()).hex()
    return "0x" + "".join(digit.upper() if int(mark, 16) >= 8 else digit for digit, mark in zip(digits, digest, strict=False))


def has_wrong_checksum(address: str) -> bool:
    """Whether an address mixes upper and lower case, and not as its checksum says: a digit is wrong, most likely."""
    digits = address[2:]
    return digits not in {digits.lower(), digits.upper()} and address != to_checksum_address(address)
