"""Quotas of requests in progress and of bodies in memory, by owner: a peer until the signature is verified, then the Spender.

Bytes of bodies count as they arrive, not as they are announced. People without a lease share a quota of their own for bodies, so that no
number of them takes memory from Spenders; within a shared quota each owner has a limit, so that no owner uses it up.
"""

from __future__ import annotations

from collections import Counter

from pandacea.api.connection_guard import HttpLimits
from pandacea_sdk.protocol.problems import ProtocolError


class RequestQuotas:
    """Counts what the requests of one server hold."""

    def __init__(self, limits: HttpLimits) -> None:
        """Start with no request."""
        self.limits = limits
        self.requests: Counter[str] = Counter()
        self.bodies: Counter[str] = Counter()
        self.stranger_bytes = 0
        self.spender_bytes = 0

    def begin_request(self, peer: str) -> RequestUsage:
        """Count a request whose head was read.

        Raises:
            ProtocolError: `too-many-connections`: the peer has as many requests in progress as it may.
        """
        if self.requests[peer] >= self.limits.connections_per_peer:
            raise ProtocolError(
                "too-many-connections", "Too many requests of your address are in progress; let some end, or try again."
            )
        self.requests[peer] += 1
        return RequestUsage(self, peer)

    def release(self, counted: Counter[str], owner: str, number: int) -> None:
        """Subtract from a count; owners that hold nothing are dropped."""
        counted[owner] -= number
        if not counted[owner]:
            del counted[owner]


class RequestUsage:
    """What one request holds, until `release`."""

    __slots__ = ("_bytes", "_peer", "_quotas", "_spender")

    def __init__(self, quotas: RequestQuotas, peer: str) -> None:
        """Call `RequestQuotas.begin_request` to make one."""
        self._quotas, self._peer = quotas, peer
        self._spender: str | None = None
        self._bytes = 0

    @property
    def peer(self) -> str:
        """The name under which the other end is counted."""
        return self._peer

    def assign_to_spender(self, spender: str) -> None:
        """Count the request as one of a Spender, whose signature was verified before the body is read.

        Raises:
            ProtocolError: `rate-limited`: the Spender has as many requests in progress as it may.
        """
        quotas = self._quotas
        limit = quotas.limits.requests_per_spender
        if quotas.requests[spender] >= limit:
            raise ProtocolError("rate-limited", f"You have {limit} requests in progress here; let some end, or try again.")
        quotas.requests[spender] += 1
        self._spender = spender

    def add_bytes(self, number: int) -> None:
        """Count bytes of a body that arrived.

        Raises:
            ProtocolError: `too-many-connections`: the owner's limit, or the shared quota, is reached.
        """
        if not number:
            return
        quotas, limits = self._quotas, self._quotas.limits
        owner = self._spender or self._peer
        owner_limit = limits.bodies_per_spender if self._spender else limits.stranger_bodies_per_peer
        shared_quota = limits.bodies_bytes if self._spender else limits.stranger_bodies_bytes
        in_use = quotas.spender_bytes if self._spender else quotas.stranger_bytes
        if quotas.bodies[owner] + number > owner_limit or in_use + number > shared_quota:
            raise ProtocolError("too-many-connections", "Too many bodies are being read at once; let some end, or try again.")
        self._bytes += number
        quotas.bodies[owner] += number
        if self._spender:
            quotas.spender_bytes += number
        else:
            quotas.stranger_bytes += number

    def release(self) -> None:
        """Release what the request holds."""
        quotas = self._quotas
        quotas.release(quotas.requests, self._peer, 1)
        if self._bytes:
            quotas.release(quotas.bodies, self._spender or self._peer, self._bytes)
            if self._spender:
                quotas.spender_bytes -= self._bytes
            else:
                quotas.stranger_bytes -= self._bytes
        if self._spender:
            quotas.release(quotas.requests, self._spender, 1)
