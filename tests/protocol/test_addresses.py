"""Addresses with their checksum: the examples of EIP-55."""

from __future__ import annotations

import pytest

from pandacea_sdk.protocol.addresses import has_wrong_checksum, to_checksum_address

EXAMPLES = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]


@pytest.mark.parametrize("address", EXAMPLES)
def test_the_checksum_is_that_of_the_standard(address: str) -> None:
    """Whatever case an address comes in."""
    assert to_checksum_address(address.lower()) == to_checksum_address("0x" + address[2:].upper()) == address
    assert not has_wrong_checksum(address)
    assert not has_wrong_checksum(address.lower())


def test_one_letter_in_another_case_is_noticed() -> None:
    """And so is a wrong digit, nearly always."""
    assert has_wrong_checksum(EXAMPLES[2].replace("5aAeb", "5aAeB"))
    assert has_wrong_checksum(EXAMPLES[2].replace("5aAeb6", "5aAeb7"))
