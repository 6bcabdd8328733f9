"""Who is counted as one: an address, a /64 of IPv6, a client that a proxy of ours names."""

from __future__ import annotations

import pytest

from pandacea.api.peers import TrustedProxies, parse_address, peer_name


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_one_host_is_one_peer(address: str, peer: str) -> None:
    """An IPv6 host has 2^64 addresses; an IPv4 one has the same name however it is written."""
    parsed = parse_address(address)
    assert parsed is not None
    assert peer_name(parsed) == peer


@pytest.mark.parametrize(
    ("header", "peer"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["198.51.100.1, 203.0.113.9"], "203.0.113.9"),  # what the client wrote stands left of what the proxy added
        (["198.51.100.1", "203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, 10.0.0.2"], "203.0.113.9"),  # through a second proxy of ours
        (["203.0.113.9, 10.9.9.9, 10.0.0.2"], "10.9.9.9"),  # of another network: no proxy of ours
        (["2001:db8::5"], "2001:db8::/64"),
        ([], "10.0.0.1"),
        ([""], "10.0.0.1"),
        (["unknown"], "10.0.0.1"),
        (["203.0.113.9, nonsense, 10.0.0.2"], "10.0.0.2"),
        (["203.0.113.9:4711"], "10.0.0.1"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
    ],
)
def test_the_client_is_the_rightmost_hop_that_is_no_proxy(header: list[str], peer: str) -> None:
    """Missing or unreadable: the last hop that can be believed is counted itself, so that nothing is gained by it."""
    assert TrustedProxies(["10.0.0.0/24"]).client_peer("10.0.0.1", header) == peer


def test_nobody_is_a_proxy_unless_named() -> None:
    """The default believes nobody."""
    address = parse_address("127.0.0.1")
    assert address is not None
    assert address not in TrustedProxies()
    assert address in TrustedProxies(["127.0.0.0/8"])
