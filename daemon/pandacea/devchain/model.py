"""The embedded chain's objects: accounts, blocks, transactions, logs, calls, and its two refusals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pandacea.errors import Refused

ZERO_ADDRESS: Final = bytes(20)
"""The sender of a call that names none."""


class ExecutionReverted(Refused):
    """The contract reverted the call."""

    code = "execution-reverted"

    def __init__(self, data: bytes, reason: str) -> None:
        """`data`: the contract's revert data; empty when the EVM stopped the call (out of gas, invalid opcode)."""
        super().__init__(f"execution reverted: {reason}" if reason else "execution reverted")
        self.data = data


class TransactionRefused(Refused):
    """The transaction cannot enter a block."""

    code = "transaction-refused"


@dataclass(frozen=True, slots=True)
class DevAccount:
    """A funded account of the embedded chain. Its key is public."""

    address: str
    """Lower-case hex."""
    private_key: str
    """`0x` + 64 hex digits."""


@dataclass(frozen=True, slots=True)
class MinedLog:
    """One log with its position in the chain."""

    block_number: int
    block_hash: bytes
    transaction_hash: bytes
    transaction_index: int
    index: int
    """Within the block."""
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class IncludedTransaction:
    """A transaction included in a block. `transaction`: py-evm's object."""

    transaction: Any
    hash: bytes
    sender: bytes
    block_number: int
    index: int
    succeeded: bool
    gas_used: int
    cumulative_gas_used: int
    bloom: int
    created: bytes | None
    logs: tuple[MinedLog, ...]


@dataclass(frozen=True, slots=True)
class MinedBlock:
    """A mined block. `header`: py-evm's object; `size`: in bytes."""

    header: Any
    hash: bytes
    size: int
    transactions: tuple[IncludedTransaction, ...]


@dataclass(frozen=True, slots=True)
class CallRequest:
    """The parameters of `eth_call` and `eth_estimateGas`."""

    sender: bytes = ZERO_ADDRESS
    to: bytes = b""
    """Empty: the call creates a contract."""
    data: bytes = b""
    value: int = 0
    gas: int | None = None
