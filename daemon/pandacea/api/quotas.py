"""What requests hold of what all share, by owner: a peer until the signature is verified, the Spender from then on.

Two things are counted: requests in progress, and bytes of bodies in memory, as they come and not as they are announced. People without a
lease have a pot of their own for bodies, so that no number of them takes anything from a Spender; within a pot each owner has a share, so
that no owner takes it all.
"""

from __future__ import annotations

from collections import Counter

from pandacea.api.connection_guard import HttpLimits
from pandacea_sdk.protocol.problems import ProtocolError


class RequestQuotas:
    """The counts of one server."""

    def __init__(self, limits: HttpLimits) -> None:
        """Start with none."""
        self.limits = limits
        self.requests: Counter[str] = Counter()
        self.bodies: Counter[str] = Counter()
        self.stranger_bytes = 0
        self.spender_bytes = 0

    def begin_request(self, peer: str) -> RequestUsage:
        """Count a request whose head was read.

        Raises:
            ProtocolError: `too-many-connections`: the peer has its share of requests in progress.
        """
        if self.requests[peer] >= self.limits.connections_per_peer:
            raise ProtocolError(
                "too-many-connections", "Too many requests of your address are in progress; let some end, or try again."
            )
        self.requests[peer] += 1
        return RequestUsage(self, peer)

    def release(self, counted: Counter[str], owner: str, number: int) -> None:
        """Give back; owners that hold nothing are forgotten."""
        counted[owner] -= number
        if not counted[owner]:
            del counted[owner]


class RequestUsage:
    """What one request holds. `end` gives everything back."""

    __slots__ = ("_bytes", "_peer", "_shares", "_spender")

    def __init__(self, shares: RequestQuotas, peer: str) -> None:
        """For `Shares.begin`."""
        self._shares, self._peer = shares, peer
        self._spender: str | None = None
        self._bytes = 0

    @property
    def peer(self) -> str:
        """Who is at the other end."""
        return self._peer

    def assign_to_spender(self, spender: str) -> None:
        """Count it as a request of a Spender, whose signature was verified before the body is read.

        Raises:
            ProtocolError: `rate-limited`: the Spender has its share of requests in progress.
        """
        shares = self._shares
        most = shares.limits.requests_per_spender
        if shares.requests[spender] >= most:
            raise ProtocolError("rate-limited", f"You have {most} requests in progress here; let some end, or try again.")
        shares.requests[spender] += 1
        self._spender = spender

    def add_bytes(self, number: int) -> None:
        """Count bytes of a body that came.

        Raises:
            ProtocolError: `too-many-connections`: the owner's share, or the pot, is in use.
        """
        if not number:
            return
        shares, limits = self._shares, self._shares.limits
        owner = self._spender or self._peer
        share = limits.bodies_per_spender if self._spender else limits.stranger_bodies_per_peer
        pot = limits.bodies_bytes if self._spender else limits.stranger_bodies_bytes
        held = shares.spender_bytes if self._spender else shares.stranger_bytes
        if shares.bodies[owner] + number > share or held + number > pot:
            raise ProtocolError("too-many-connections", "Too many bodies are being read at once; let some end, or try again.")
        self._bytes += number
        shares.bodies[owner] += number
        if self._spender:
            shares.spender_bytes += number
        else:
            shares.stranger_bytes += number

    def release(self) -> None:
        """Give everything back."""
        shares = self._shares
        shares.release(shares.requests, self._peer, 1)
        if self._bytes:
            shares.release(shares.bodies, self._spender or self._peer, self._bytes)
            if self._spender:
                shares.spender_bytes -= self._bytes
            else:
                shares.stranger_bytes -= self._bytes
        if self._spender:
            shares.release(shares.requests, self._spender, 1)
