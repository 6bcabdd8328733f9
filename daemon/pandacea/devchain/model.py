"""What the embedded chain keeps and is asked: blocks, transactions, logs, calls, and the two ways it says no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from pandacea.errors import Refused

ZERO_ADDRESS: Final = bytes(20)
"""Who calls when no sender is named."""


class ExecutionReverted(Refused):
    """The call was undone by the contract."""

    code = "execution-reverted"

    def __init__(self, data: bytes, reason: str) -> None:
        """`data`: what the contract reverted with; empty when the machine itself stopped (out of gas, invalid opcode)."""
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
    """One log, with where it stands."""

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
    """A transaction in its block. `transaction` is py-evm's object."""

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
    """A block: `header` is py-evm's object, the rest what was mined under it."""

    header: Any
    hash: bytes
    size: int
    transactions: tuple[IncludedTransaction, ...]


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What `eth_call` and `eth_estimateGas` take."""

    sender: bytes = ZERO_ADDRESS
    to: bytes = b""
    """Empty: creation."""
    data: bytes = b""
    value: int = 0
    gas: int | None = None
