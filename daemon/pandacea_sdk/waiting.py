"""Handles on what waits for the Earner: a lease that was paid for, and a script that was handed in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self
from urllib.parse import quote

from pandacea_sdk.errors import CodeError, LeaseError, NodeError, NodeUnavailable, UsageError
from pandacea_sdk.node import NodeConnection, parse_object
from pandacea_sdk.protocol.ids import LeaseStatus
from pandacea_sdk.protocol.json_types import JsonMapping

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 30.0
"""Between two questions to the node while a person decides."""
_OPEN_LEASES: Final = frozenset({LeaseStatus.CREATED, LeaseStatus.APPROVED})
_NOT_YET: Final = frozenset({"lease-unknown", "unknown-spender"})


class Identified(Protocol):
    """What has an id, such as a handle on a lease."""

    @property
    def id(self) -> str:
        """The id, `0x` and 64 hex digits."""


class StillWaiting(NodeUnavailable):
    """The Earner has not decided in time: nothing is lost, wait again."""

    def __init__(self, what: str, seconds: float, reason: str) -> None:
        """`what` waits, for how long, and the node's reason."""
        super().__init__("still-waiting", f"{what} still waits for the Earner after {seconds:.0f} s: {reason} Wait again later.")


@dataclass(frozen=True, slots=True)
class LeaseBill:
    """What a lease cost. `price` and `max_fee` (the most for gas) in wei; the price comes back if nothing is delivered."""

    product_id: str
    product_version: str
    earner: str
    contract: str
    price: int
    max_fee: int
    computations: int
    days: int

    def __str__(self) -> str:
        """One sentence with the sums in the native coin."""
        price, gas = (f"{wei / 10**18:g}" for wei in (self.price, self.max_fee))
        return (
            f"{self.product_id}: {price} for {self.computations} computations in {self.days} days, paid into the contract {self.contract} "
            f"for the Earner {self.earner}, and at most {gas} for gas. Before approval `LeaseChain.cancel` brings the price back."
        )


@dataclass(frozen=True, slots=True)
class LeaseUsage:
    """How a node sees a lease. `expires_at`: Unix seconds; `reason`: why it would refuse a computation now, None: it would not."""

    status: str
    used: int
    reserved: int
    left: int
    expires_at: int | None
    may_run: bool
    reason: str | None


class AsyncLeaseHandle:
    """A lease, by its id: waited for, and looked at."""

    def __init__(self, node: NodeConnection, lease_id: str, bill: LeaseBill | None) -> None:
        """`bill` None: another process made the lease."""
        self._node, self._id, self._bill = node, lease_id, bill

    @property
    def id(self) -> str:
        """The lease's id, `0x` and 64 hex digits: keep it, and `client.open_lease(id)` makes this handle again."""
        return self._id

    @property
    def bill(self) -> LeaseBill | None:
        """What it cost; None where another process made it."""
        return self._bill

    async def status(self) -> LeaseUsage:
        """Fetch how this node sees the lease: what of it is used, reserved and left, until when, and why it would refuse.

        Raises:
            LeaseError: `lease-unknown`, `unknown-spender`: it was not approved yet, or is not yours.
        """
        stated = parse_object(await self._node.send_signed("GET", f"/api/v1/leases/{quote(self._id, safe='')}"))
        try:
            used, reserved, allowed = (int(stated[name]) for name in ("used", "reserved", "max_computations"))
            return LeaseUsage(
                str(stated["status"]),
                used,
                reserved,
                max(allowed - used - reserved, 0),
                stated.get("expires_at"),
                stated["may_run"] is True,
                stated.get("reason"),
            )
        except (KeyError, TypeError, ValueError):
            raise NodeError("bad-answer", "The node's answer about the lease does not have the expected shape.") from None

    async def wait(self, timeout: float = 7 * 86_400.0) -> Self:
        """Wait until this node would run a computation under it: the Earner approved it, and the chain shows it deeply enough.

        Args:
            timeout: seconds; the Earner has 7 days to approve.

        Raises:
            StillWaiting: not within `timeout` seconds.
            LeaseError: it ended; `lease.status()` says how.
        """
        deadline, pause = time.monotonic() + timeout, FIRST_PAUSE_SECONDS
        while True:
            reason = "the node does not know it as approved."
            try:
                seen = await self.status()
                if seen.may_run:
                    return self
                reason = seen.reason or "the node gives no reason."
                expired = seen.expires_at is not None and seen.expires_at <= time.time()
                if seen.status not in _OPEN_LEASES or expired:
                    raise LeaseError("refused", f"The lease {self._id} is {'expired' if expired else seen.status}: {reason}")
            except LeaseError as error:
                if error.code not in _NOT_YET:
                    raise
            await _pause_until(deadline, pause, f"The lease {self._id}", timeout, reason)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


class AsyncCodeHandle:
    """A script that was handed in for the Earner's approval."""

    def __init__(self, node: NodeConnection, answer: JsonMapping) -> None:
        """`answer`: the node's to the submission."""
        if not isinstance(answer.get("code_id"), str):
            raise NodeError("bad-answer", "The node's answer names no script.")
        self._node, self._answer = node, answer

    @property
    def id(self) -> str:
        """The id of script, inputs, uploads and params schema together; `client.code_state(id)` fetches the decision."""
        return str(self._answer["code_id"])

    @property
    def answer(self) -> JsonMapping:
        """The node's answer to the submission: `{"code_id", "status", ...}`."""
        return self._answer

    async def status(self) -> str:
        """Fetch the decision: pending, approved or rejected."""
        return str((await self._fetch()).get("status"))

    async def wait_approved(self, hours: float = 24.0) -> Self:
        """Wait until the Earner approved it.

        Raises:
            StillWaiting: nobody decided within `hours`.
            CodeError: it was rejected; the message is the Earner's reason.
        """
        deadline, pause = time.monotonic() + hours * 3600, FIRST_PAUSE_SECONDS
        while True:
            stated = await self._fetch()
            if stated.get("status") == "approved":
                return self
            if stated.get("status") == "rejected":
                raise CodeError("code-refused", f"The Earner rejected this script: {stated.get('reason') or 'no reason was given'}")
            await _pause_until(deadline, pause, f"The script {self.id}", hours * 3600, "nobody decided yet.")
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _fetch(self) -> dict[str, Any]:
        return parse_object(await self._node.send_signed("GET", f"/api/v1/privacy/code/{quote(self.id, safe='')}"))


def id_of(lease: str | Identified) -> str:
    """Return the id of a lease, given itself or by its handle."""
    return lease if isinstance(lease, str) else lease.id


def product_id_of(product: str | JsonMapping) -> str:
    """Return the id of a product, given itself or as `product` answered it.

    Raises:
        UsageError: it is neither.
    """
    found = product if isinstance(product, str) else product.get("productId") if isinstance(product, Mapping) else None
    if not isinstance(found, str):
        raise UsageError("bad-usage", 'product is neither an id nor what client.product("id") returned.')
    return found


async def _pause_until(deadline: float, pause: float, what: str, seconds: float, reason: str) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise StillWaiting(what, seconds, reason)
    await asyncio.sleep(min(pause, left))
