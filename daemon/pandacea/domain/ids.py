"""Identifiers and units. Hex is lower-case everywhere; an `Address` is never checksummed inside the node."""

from __future__ import annotations

from typing import Final, NamedTuple, NewType

from pandacea_sdk.protocol.ids import ADDRESS, ASSET_ID, HASH32

Address = NewType("Address", str)  # "0x" + 40 lower-case hex digits
Hash32 = NewType("Hash32", str)  # "0x" + 64 lower-case hex digits
LeaseId = NewType("LeaseId", str)  # a Hash32
ComputationId = NewType("ComputationId", str)  # a Hash32
AssetId = NewType("AssetId", str)
ProductId = NewType("ProductId", str)
Wei = NewType("Wei", int)
Timestamp = NewType("Timestamp", int)  # Unix seconds, UTC
BlockNumber = NewType("BlockNumber", int)

PRODUCT_ID: Final = ASSET_ID


class LeaseKey(NamedTuple):
    """The full name of a lease: the same id under another contract or on another chain is another lease."""

    chain_id: int
    contract: Address
    lease_id: LeaseId


__all__ = [
    "ADDRESS",
    "ASSET_ID",
    "HASH32",
    "PRODUCT_ID",
    "Address",
    "AssetId",
    "BlockNumber",
    "ComputationId",
    "Hash32",
    "LeaseId",
    "LeaseKey",
    "ProductId",
    "Timestamp",
    "Wei",
]
