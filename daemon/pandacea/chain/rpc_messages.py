"""JSON-RPC answers as msgspec structs, decoded straight from bytes without web3's result formatters."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

from pandacea.domain.chain_view import BEFORE_GENESIS, BlockRef
from pandacea.domain.ids import HASH32, BlockNumber, Hash32, Timestamp
from pandacea_sdk.protocol.ids import HEX_BYTES, HEX_QUANTITY

T = TypeVar("T")

MAX_QUANTITY: Final = 2**62
"""Exclusive bound of every number read: above any block number, time in seconds, nonce or gas, and below a BIGINT column's limit."""


def parse_quantity(text: str) -> int:
    """Parse a QUANTITY of the Ethereum JSON-RPC. `int(text, 16)` would also accept signs, blanks, underscores and any length.

    Raises:
        ValueError: the text is not a QUANTITY, or the number is `MAX_QUANTITY` or more.
    """
    if HEX_QUANTITY.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not a hex number")
    number = int(text, 16)
    if number >= MAX_QUANTITY:
        raise ValueError(f"{text[:40]} is too large")
    return number


def parse_data(text: str) -> bytes:
    """Parse DATA of the Ethereum JSON-RPC.

    Raises:
        ValueError: the text is not `0x` and two hex digits for each byte.
    """
    if HEX_BYTES.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not hex bytes")
    return bytes.fromhex(text[2:])


class JsonRpcError(msgspec.Struct, gc=False):
    """The `error` member of a JSON-RPC 2.0 response."""

    code: int = 0
    message: str = ""
    data: Any = None


class RpcResponse(msgspec.Struct, Generic[T]):
    """A JSON-RPC 2.0 response; a missing `result` reads as null."""

    result: T | None = None
    error: JsonRpcError | None = None


class BlockHeader(msgspec.Struct, rename="camel", gc=False):
    """The part of `eth_getBlockByNumber` that the follower needs, numbers still in hex."""

    number: str
    hash: str
    parent_hash: str
    timestamp: str
    logs_bloom: str = ""

    def to_block_ref(self) -> BlockRef:
        """Convert to the domain's block reference.

        Raises:
            ValueError: a number or hash is malformed.
        """
        block_hash, parent = self.hash.lower(), self.parent_hash.lower()
        if HASH32.fullmatch(block_hash) is None or HASH32.fullmatch(parent) is None:
            raise ValueError(f"{block_hash[:70]!r} or {parent[:70]!r} is not a hash")
        return BlockRef(
            BlockNumber(parse_quantity(self.number)), Hash32(block_hash), Hash32(parent), Timestamp(parse_quantity(self.timestamp))
        )


class RpcLog(msgspec.Struct, rename="camel", gc=False):
    """One entry of `eth_getLogs`, unchecked until it has passed `logs.check_logs`."""

    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: Hash32
    transaction_hash: Hash32
    log_index: str
    removed: bool = False
    number: BlockNumber = BEFORE_GENESIS
    """Block number and log index as integers, filled in by `logs.check_logs`."""
    index: int = -1


class AccessListEntry(msgspec.Struct, rename="camel"):
    """An entry of an EIP-2930 access list."""

    address: str
    storage_keys: list[str] = []


class Authorization(msgspec.Struct, rename="camel"):
    """An entry of an EIP-7702 authorization list."""

    chain_id: str
    address: str
    nonce: str
    r: str
    s: str
    y_parity: str = "0x0"


class RpcTransaction(msgspec.Struct, rename="camel"):
    """The answer of `eth_getTransactionByHash`: every field that goes into its hash (EIP-155, 2930, 1559, 4844, 7702).

    Transactions that no key signed (a rollup's own, zkSync's) have no r, s and v.
    """

    hash: str
    nonce: str = ""
    gas: str = ""
    value: str = ""
    input: str = ""
    r: str | None = None
    s: str | None = None
    v: str | None = None
    type: str = "0x0"
    to: str | None = None
    block_hash: str | None = None
    block_number: str | None = None
    chain_id: str | None = None
    gas_price: str | None = None
    max_fee_per_gas: str | None = None
    max_priority_fee_per_gas: str | None = None
    max_fee_per_blob_gas: str | None = None
    access_list: list[AccessListEntry] | None = None
    blob_versioned_hashes: list[str] | None = None
    authorization_list: list[Authorization] | None = None
    y_parity: str | None = None


class TransactionReceipt(msgspec.Struct, rename="camel"):
    """The answer of `eth_getTransactionReceipt`."""

    transaction_hash: str
    block_hash: str
    block_number: str
    status: str = "0x1"
    logs: list[RpcLog] = []
    gas_used: str | None = None
    effective_gas_price: str | None = None
    l1_fee: str | None = None
    """What an OP-stack chain takes for the parent chain's data, on top of gas."""


class BlockReceipt(msgspec.Struct, rename="camel"):
    """One receipt of `eth_getBlockReceipts`, its logs only."""

    logs: list[RpcLog] = []


class BaseFee(msgspec.Struct, rename="camel"):
    """The EIP-1559 base fee of a block, in wei as hex; None on a chain without one."""

    base_fee_per_gas: str | None = None
