"""Reads what a signed transaction commits: the database holds it as it was signed, and nothing beside it that could contradict it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import rlp

from pandacea.domain.ids import ComputationId, Hash32, LeaseId
from pandacea.flows.ports import Commitment
from pandacea_sdk.protocol.contract import abi_signature, function_selector, lease_agreement

_LEGACY_DATA: Final = 5
"""Place of the calldata among the fields of a legacy transaction; of a typed one it is 2 more (chain id, tip)."""
_WORD: Final = 32


def encode_commitments(commitments: Sequence[Commitment]) -> bytes:
    """Encode the call that commits them: `commitResult` for one, `commitResults` for several."""
    if len(commitments) == 1:
        return lease_agreement().encode_call("commitResult", *commitments[0])
    return lease_agreement().encode_call("commitResults", [tuple(one) for one in commitments])


def commitments_in(raw: str) -> list[Commitment]:
    """List what a signed transaction (hex) commits; empty: it is another call."""
    data = calldata_of(raw)
    head, body = data[:4], data[4:]
    if head == _selector("commitResult"):
        words = body
    elif head == _selector("commitResults"):
        words = body[2 * _WORD :]  # after the offset and the number of items
    else:
        return []
    items = [words[start : start + _WORD] for start in range(0, len(words), _WORD)]
    return [
        Commitment(LeaseId("0x" + lease.hex()), ComputationId("0x" + computation.hex()), Hash32("0x" + result.hex()))
        for lease, computation, result in zip(items[0::3], items[1::3], items[2::3], strict=True)
    ]


def calldata_of(raw: str) -> bytes:
    """Return the calldata of a signed transaction (hex)."""
    signed = bytes.fromhex(raw[2:])
    typed = signed[0] < 0x7F  # EIP-2718
    fields = rlp.decode(signed[1:] if typed else signed)
    return bytes(fields[_LEGACY_DATA + 2 if typed else _LEGACY_DATA])


def _selector(name: str) -> bytes:
    return next(
        function_selector(abi_signature(item))
        for item in lease_agreement().abi
        if item["type"] == "function" and item["name"] == name
    )
