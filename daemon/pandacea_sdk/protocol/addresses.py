"""Checksums of Ethereum addresses (EIP-55): the upper and lower case of their letters."""

from __future__ import annotations

from pandacea_sdk.protocol.hashing import keccak256


def to_checksum_address(address: str) -> str:
    """Write an address (`0x` and 40 hex digits, in any case) with the upper and lower case of its checksum."""
    digits = address[2:].lower()
    digest = keccak256(digits.encode()).hex()
    return "0x" + "".join(digit.upper() if int(mark, 16) >= 8 else digit for digit, mark in zip(digits, digest, strict=False))


def has_wrong_checksum(address: str) -> bool:
    """Tell whether a mixed-case address contradicts its checksum, as it does when a digit is wrong. One case alone carries no checksum."""
    digits = address[2:]
    return digits not in {digits.lower(), digits.upper()} and address != to_checksum_address(address)
