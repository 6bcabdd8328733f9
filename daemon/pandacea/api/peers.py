"""Names of the other end of a connection: an address, the /64 network of an IPv6 address, or the client of a trusted proxy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

UNKNOWN: Final = "local"
"""Name of a peer without an IP address."""
IPV6_PREFIX: Final = 64
"""Bits of an IPv6 address that distinguish customers: a single host may use all addresses below them."""

IpAddress = IPv4Address | IPv6Address


def parse_address(text: str) -> IpAddress | None:
    """Parse an IP address; an IPv4 address written as IPv6 becomes IPv4. None: it is not an address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def peer_name(address: IpAddress) -> str:
    """Return the name under which an address is counted."""
    if isinstance(address, IPv4Address):
        return str(address)
    network = int(address) >> (128 - IPV6_PREFIX) << (128 - IPV6_PREFIX)
    return f"{IPv6Address(network)}/{IPV6_PREFIX}"


class TrustedProxies:
    """The proxies in front of this node: their connections carry many clients, and only their X-Forwarded-For is believed."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """`networks`: addresses or networks, as `10.0.0.0/8`.

        Raises:
            ValueError: one of them is neither.
        """
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(ip_network(network) for network in networks)

    def __contains__(self, address: IpAddress) -> bool:
        """Return whether a trusted proxy has this address."""
        return any(address in network for network in self._networks)

    def client_peer(self, proxy: str, forwarded_for: Sequence[str]) -> str:
        """Return the peer on whose behalf a proxy sent a request: the rightmost hop of X-Forwarded-For that is not a trusted proxy.

        The client wrote what stands left of it, and is not believed. Where the header is missing, or holds something that is not an
        address, the last trusted hop is counted itself.

        Args:
            proxy: name of the peer that the connection came from.
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
