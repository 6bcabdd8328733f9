"""Errors of this package, in classes by what the caller should do next."""

from __future__ import annotations

from pandacea_sdk.protocol.contract import Revert
from pandacea_sdk.protocol.json_types import JsonMapping


class ChainError(Exception):
    """Base class of this package's errors."""


class RpcUnavailable(ChainError):
    """The RPC endpoint did not answer, or not in JSON-RPC: try again, or another endpoint. Whether anything happened is unknown."""


class RpcRefused(ChainError):
    """The RPC endpoint answered with an error of its own: see `code`, `message` and `data`, as it sent them."""

    def __init__(self, method: str, code: int, message: str, data: object = None) -> None:
        """`code`, `message` and `data`: members of the JSON-RPC 2.0 error."""
        super().__init__(f"{method} was refused by the RPC endpoint: {message} (code {code})")
        self.method, self.code, self.message, self.data = method, code, message, data


class ContractReverted(ChainError):
    """The contract reverted the call: `name` and `values` are its custom error's. Mostly raised before anything is sent."""

    def __init__(self, action: str, revert: Revert, transaction_hash: str | None = None) -> None:
        """`transaction_hash`: set when the transaction was mined and reverted, so that its gas is spent."""
        where = f" (in transaction {transaction_hash})" if transaction_hash else ""
        super().__init__(f"{action} was refused by the contract{where}: {revert}")
        self.action, self.revert, self.transaction_hash = action, revert, transaction_hash
        self.name: str = revert.name
        self.values: JsonMapping = revert.values


class NotMined(ChainError):
    """The transaction was sent and is not in a block yet. It may still be mined: look `transaction_hash` up before sending another."""

    def __init__(self, transaction_hash: str, seconds: float) -> None:
        """`seconds`: how long the sender has waited."""
        super().__init__(f"transaction {transaction_hash} was not mined within {seconds:g} s; it may still be: look it up first")
        self.transaction_hash = transaction_hash


class FeeAboveCap(ChainError):
    """The endpoint suggests a fee, tip or gas limit above what you allow: nothing was signed or sent. See `what`, `value` and `cap`."""

    def __init__(self, action: str, what: str, value: int, cap: int, remedy: str, unit: str = "units") -> None:
        """`what`: "fee", "tip" or "gas"; `value` and `cap` in `unit`; `remedy`: what to do now."""
        super().__init__(
            f"{action} was not sent: the endpoint asks for a {what} of {value:,} {unit}, and at most {cap:,} are allowed. {remedy}"
        )
        self.action, self.what, self.value, self.cap = action, what, value, cap


class WrongDeployment(ChainError):
    """The endpoint serves another chain, or the address has no code or other code than expected: check chain and address."""
