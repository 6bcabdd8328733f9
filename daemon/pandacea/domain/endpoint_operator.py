"""Who operates an RPC endpoint: two endpoints of one operator count as one, and one proves nothing."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import urlsplit

LOCAL_NETWORK: Final = "this network"
"""The operator of every endpoint that has no registered name: an address, `localhost`, a name of a local network."""

_LOCAL: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".test", ".invalid", ".example")


def operator_of(url: str, stated: str | None = None) -> str:
    """Return who operates the endpoint at a URL: what the node's operator states, else the last two labels of its host name.

    Whoever can put a name below `provider.com` is `provider.com`, as far as anybody can tell from outside. Two labels are never more
    than the registered domain, so two operators may be taken for one (`a.co.uk`, `b.co.uk`), but never one for two hosts of its own.
    """
    if stated is not None:
        return stated.strip().casefold()
    host = (urlsplit(url).hostname or "").rstrip(".").casefold()
    if "." not in host or _is_address(host) or f".{host}".endswith(_LOCAL):
        return LOCAL_NETWORK
    return ".".join(host.split(".")[-2:])


def normalize_url(url: str) -> str:
    """Return a URL in the form in which two spellings of it are equal."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme.lower())
    host = (parts.hostname or "").rstrip(".").casefold()
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme.lower()}://{parts.username or ''}:{parts.password or ''}@{host}:{port}{parts.path.rstrip('/')}{query}"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host.replace(".", "").isdigit()  # 127.1 is an address to most resolvers
    return True
