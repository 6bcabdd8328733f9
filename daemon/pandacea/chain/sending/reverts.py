"""Explains a reverted call: whether the contract refuses it for good, or now."""

from __future__ import annotations

from typing import Any, Final

from pandacea.chain.rpc_faults import RpcFault
from pandacea.domain.ids import Address
from pandacea.errors import Refused, Unavailable
from pandacea_sdk.protocol.contract import Revert, lease_agreement

_PERMANENT: Final = frozenset({"TooLate", "AllCommitted", "AlreadyCommitted", "ZeroResultHash", "WrongStatus"})
"""Custom errors that waiting does not change."""


def error_from_revert(fault: RpcFault, sender: Address) -> Refused | Unavailable:
    """Build the error of a failed call or gas estimate; the fault itself where the contract gave no reason."""
    revert = _revert(fault.data)
    if revert is None:
        return insufficient_funds(sender) if "insufficient funds" in fault.detail.lower() else fault
    if revert.name in _PERMANENT:
        return Refused(f"The contract refuses: {revert}")
    return Unavailable(f"The contract refuses now: {revert}", retry_after=60)


def insufficient_funds(sender: Address) -> Unavailable:
    """Build the error of a sender that cannot pay for gas."""
    return Unavailable(f"{sender} has not enough ether to pay for gas. Send it some.", retry_after=300)


def _revert(data: Any) -> Revert | None:
    """Decode the custom error in a JSON-RPC error's data: a hex string, or an object that holds one (providers differ)."""
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    if not isinstance(data, str) or not data.startswith("0x") or len(data) < 10:
        return None
    try:
        return lease_agreement().decode_revert(bytes.fromhex(data[2:]))
    except ValueError:
        return None
