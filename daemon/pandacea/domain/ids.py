"""Identifiers and units. Hex is lower-case everywhere; an `IpAddress` is never checksummed inside the node."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, NewType

Address = NewType("Address", str)  # "0x" + 40 lower-case hex digits
Hash32 = NewType("Hash32", str)  # "0x" + 64 lower-case hex digits
LeaseId = NewType("LeaseId", str)  # a Hash32
ComputationId = NewType("ComputationId", str)  # a Hash32
AssetId = NewType("AssetId", str)
ProductId = NewType("ProductId", str)
Wei = NewType("Wei", int)
Timestamp = NewType("Timestamp", int)  # Unix seconds, UTC
BlockNumber = NewType("BlockNumber", int)

HASH32: Final = re.compile(r"0x[0-9a-f]{64}")
ADDRESS: Final = re.compile(r"0x[0-9a-f]{40}")
ASSET_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
PRODUCT_ID = ASSET_ID


class LeaseKey(NamedTuple):
    """The full name of a lease: the same id under another contract or on another chain is another lease."""

    chain_id: int
    contract: Address
    lease_id: LeaseId
