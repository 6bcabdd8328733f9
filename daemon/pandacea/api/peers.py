"""Who is at the other end: a peer is an address, or the /64 network of an IPv6 address; a declared proxy speaks for its clients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

UNKNOWN: Final = "local"
"""A peer without an IP address."""
IPV6_PREFIX: Final = 64
"""Bits of an IPv6 address that tell one customer from another: a single host has the rest to itself."""

IpAddress = IPv4Address | IPv6Address


def parse_address(text: str) -> IpAddress | None:
    """The IP address that a text is, IPv4 also where it is written as an IPv6 address; None when it is none."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def peer_name(address: IpAddress) -> str:
    """The name under which an address is counted."""
    if isinstance(address, IPv4Address):
        return str(address)
    network = int(address) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX)
    return f"{IPv6Address(network)}/{IPV6_PREFIX}"


class TrustedProxies:
    """The proxies in front of this node: their connections carry many clients, and only they are believed about whose."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """`networks`: addresses or networks, as `10.0.0.0/8`.

        Raises:
            ValueError: one of them is neither.
        """
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(ip_network(network) for network in networks)

    def __contains__(self, address: IpAddress) -> bool:
        """Whether a proxy has this address."""
        return any(address in network for network in self._networks)

    def client_peer(self, proxy: str, forwarded_for: Sequence[str]) -> str:
        """The peer for whom a proxy asks: the rightmost hop of X-Forwarded-For that is no proxy of ours.

        What stands left of it was written by the client and is not believed. Where the header is missing, or names something that is no
        address, the last hop that can be believed is counted itself.

        Args:
            proxy: the peer that the connection came from.
            forwarded_for: the header's values, in their order.
        """
        peer = proxy
        for hop in reversed(",".join(forwarded_for).split(",")):
            address = parse_address(hop.strip())
            if address is None:
                return peer
            peer = peer_name(address)
            if address not in self:
                return peer
        return peer
