"""What ids, addresses and hashes look like as text, and where a lease can stand. Standard library only: the node's domain imports this.

Each pattern is for `fullmatch`.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

HASH32: Final = re.compile(r"0x[0-9a-f]{64}")
"""32 bytes, as ids and hashes travel: lower case."""
ADDRESS: Final = re.compile(r"0x[0-9a-f]{40}")
"""An Ethereum address as this system keeps and sends it: lower case."""
ADDRESS_ANY_CASE: Final = re.compile(r"0x[0-9a-fA-F]{40}")
"""An Ethereum address as people write it; `addresses.has_wrong_checksum` looks at its capitals."""
SHA256_HEX: Final = re.compile(r"[0-9a-f]{64}")
"""A sha-256 without `0x`."""
HEX_BYTES: Final = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
"""Any bytes as JSON-RPC carries them ("unformatted data"), none included."""
HEX_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")
"""A whole number of at most 256 bits as JSON-RPC carries it ("quantity"); leading zeros, which some endpoints send, are taken."""
ASSET_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""One plain path segment: ids of assets, products and uploads name files."""


class LeaseStatus(StrEnum):
    """Where a lease stands on the chain, in the order of the contract's `Status`. The last four are final: their money is credited."""

    CREATED = "created"
    APPROVED = "approved"
    EXECUTED = "executed"
    DISPUTED = "disputed"
    FINALIZED = "finalized"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"  # a dispute found valid, or an equivocation proved
    SETTLED = "settled"  # a dispute that ended otherwise
