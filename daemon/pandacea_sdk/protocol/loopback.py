"""Which hosts are this machine: plain HTTP is accepted for them alone."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Tell whether a host can only be reached from this machine. A name other than localhost counts as reachable from others."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
