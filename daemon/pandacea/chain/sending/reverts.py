"""Why a contract does not take a call: for ever, or not now."""

from __future__ import annotations

from typing import Any, Final

from pandacea.chain.rpc_faults import RpcFault
from pandacea.domain.ids import Address
from pandacea.errors import Refused, Unavailable
from pandacea_sdk.protocol.contract import Revert, lease_agreement

_FOREVER: Final = frozenset({"TooLate", "AllCommitted", "AlreadyCommitted", "ZeroResultHash", "WrongStatus"})
"""Reverts that no waiting mends."""


def error_from_revert(fault: RpcFault, sender: Address) -> Refused | Unavailable:
    """What the error of a call (or of its estimate) means to who asked for it; the fault itself where the contract said nothing."""
    revert = _revert(fault.data)
    if revert is None:
        return insufficient_funds(sender) if "insufficient funds" in fault.detail.lower() else fault
    if revert.name in _FOREVER:
        return Refused(f"The contract refuses: {revert}")
    return Unavailable(f"The contract refuses now: {revert}", retry_after=60)


def insufficient_funds(sender: Address) -> Unavailable:
    """The sender cannot pay for gas."""
    return Unavailable(f"{sender} has not enough ether to pay for gas. Send it some.", retry_after=300)


def _revert(data: Any) -> Revert | None:
    """The custom error in a JSON-RPC error's data: a hex string, or an object that holds one (providers differ)."""
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    if not isinstance(data, str) or not data.startswith("0x") or len(data) < 10:
        return None
    try:
        return lease_agreement().decode_revert(bytes.fromhex(data[2:]))
    except ValueError:
        return None
