"""What can go wrong between us and a contract, cut by what the caller should do next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pandacea_sdk.protocol.contract import Revert


class ChainError(Exception):
    """Base of the errors of this package."""


class RpcUnavailable(ChainError):
    """The RPC endpoint did not answer, or not in JSON-RPC. Try again, or another endpoint; nothing is known to have happened."""


class RpcRefused(ChainError):
    """The RPC endpoint answered with an error of its own: `code`, `message` and `data` as it sent them."""

    def __init__(self, method: str, code: int, message: str, data: Any = None) -> None:
        """As JSON-RPC 2.0 states them."""
        super().__init__(f"{method} was refused by the RPC endpoint: {message} (code {code})")
        self.method, self.code, self.message, self.data = method, code, message, data


class ContractReverted(ChainError):
    """The contract refused: `name` and `values` are its custom error's. Mostly raised before anything is sent."""

    def __init__(self, action: str, revert: Revert, transaction_hash: str | None = None) -> None:
        """`transaction_hash`: set when the transaction was mined and undone, so that its gas is spent."""
        where = f" (in transaction {transaction_hash})" if transaction_hash else ""
        super().__init__(f"{action} was refused by the contract{where}: {revert}")
        self.action, self.revert, self.transaction_hash = action, revert, transaction_hash
        self.name: str = revert.name
        self.values: Mapping[str, Any] = revert.values


class NotMined(ChainError):
    """The transaction was sent but is in no block yet. It may still be mined: look `transaction_hash` up before sending another."""

    def __init__(self, transaction_hash: str, seconds: float) -> None:
        """`seconds`: how long we waited."""
        super().__init__(f"transaction {transaction_hash} was not mined within {seconds:g} s; it may still be: look it up first")
        self.transaction_hash = transaction_hash


class WrongDeployment(ChainError):
    """Chain or address are not what they should be: another chain id, no code, or other code than expected."""
