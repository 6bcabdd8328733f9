"""What the configuration says of the server reaches the server."""

from __future__ import annotations

from pandacea.api.connection_guard import ConnectionAdmission
from pandacea.api.peers import TrustedProxies, parse_address
from pandacea.app.factories import listener_of
from pandacea.config.sections import ServerSection, StoreSection
from pandacea.flows.uploads import UploadQuota


def test_the_proxies_of_the_configuration_are_the_listeners() -> None:
    """Whoever is not named is counted by the address they come from; their connections are."""
    found = listener_of(ServerSection(host="10.0.0.2", behind_proxy=True, proxies=("10.0.0.0/30",)), 64)
    connections = ConnectionAdmission(found.limits, TrustedProxies(found.proxies))
    proxy, stranger = parse_address("10.0.0.1"), parse_address("10.0.0.9")
    assert proxy is not None
    assert stranger is not None
    assert proxy in connections.proxies
    assert stranger not in connections.proxies


def test_without_a_proxy_nobody_is_believed() -> None:
    """X-Forwarded-For is ignored by default."""
    assert listener_of(ServerSection(), 64).proxies == ()


def test_the_largest_upload_is_one_setting() -> None:
    """`store.upload_mb` bounds the body that the server reads; `app.node` gives the same number to the store of uploads."""
    assert listener_of(ServerSection(), 3).limits.upload_bytes == 3 * 2**20
    stored = UploadQuota().max_bytes
    assert stored == listener_of(ServerSection(), StoreSection().upload_mb).limits.upload_bytes
