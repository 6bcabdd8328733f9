"""JSON-RPC as it comes over the wire: msgspec structs that decode straight from bytes, without web3's formatters."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from pandacea.domain.ids import BlockNumber, Hash32, Timestamp
from pandacea.domain.seen import BEFORE_ANY, BlockRef

T = TypeVar("T")


class RpcError(msgspec.Struct, gc=False):
    """The `error` member of a JSON-RPC 2.0 response."""

    code: int = 0
    message: str = ""
    data: Any = None


class Response(msgspec.Struct, Generic[T]):
    """A JSON-RPC 2.0 response; a missing `result` reads as null."""

    result: T | None = None
    error: RpcError | None = None


class Header(msgspec.Struct, rename="camel", gc=False):
    """What the follower needs of `eth_getBlockByNumber`, numbers still in hex."""

    number: str
    hash: str
    parent_hash: str
    timestamp: str
    logs_bloom: str = ""

    def ref(self) -> BlockRef:
        """The block as the domain knows it."""
        return BlockRef(
            BlockNumber(int(self.number, 16)), Hash32(self.hash), Hash32(self.parent_hash), Timestamp(int(self.timestamp, 16))
        )


class Log(msgspec.Struct, rename="camel", gc=False):
    """One entry of `eth_getLogs`, as it came: nothing in it is believed before `logs.check`."""

    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: Hash32
    transaction_hash: Hash32
    log_index: str
    removed: bool = False
    number: BlockNumber = BEFORE_ANY
    """Block number and log index as integers: `logs.check` fills them in."""
    index: int = -1


class AccessEntry(msgspec.Struct, rename="camel"):
    """EIP-2930."""

    address: str
    storage_keys: list[str] = []


class Authorization(msgspec.Struct, rename="camel"):
    """EIP-7702."""

    chain_id: str
    address: str
    nonce: str
    r: str
    s: str
    y_parity: str = "0x0"


class Transaction(msgspec.Struct, rename="camel"):
    """`eth_getTransactionByHash`: every field that goes into its hash (EIP-155, 2930, 1559, 4844, 7702)."""

    hash: str
    nonce: str
    gas: str
    value: str
    input: str
    r: str
    s: str
    v: str = "0x0"
    type: str = "0x0"
    to: str | None = None
    block_hash: str | None = None
    block_number: str | None = None
    chain_id: str | None = None
    gas_price: str | None = None
    max_fee_per_gas: str | None = None
    max_priority_fee_per_gas: str | None = None
    max_fee_per_blob_gas: str | None = None
    access_list: list[AccessEntry] | None = None
    blob_versioned_hashes: list[str] | None = None
    authorization_list: list[Authorization] | None = None
    y_parity: str | None = None


class Receipt(msgspec.Struct, rename="camel"):
    """`eth_getTransactionReceipt`."""

    transaction_hash: str
    block_hash: str
    block_number: str
    status: str = "0x1"
    logs: list[Log] = []
    gas_used: str = "0x0"
    effective_gas_price: str | None = None


class BaseFee(msgspec.Struct, rename="camel"):
    """EIP-1559's base fee of a block, in wei as hex; 0 on a chain without one."""

    base_fee_per_gas: str = "0x0"
