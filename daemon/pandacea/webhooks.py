"""Send events to a webhook, signed as the Standard Webhooks specification says (standardwebhooks.com), to public addresses only.

The address is judged where the socket is made, on what is then connected to: a name that resolves to another address later, or a second
time, gains nothing. Nothing of the answer but its status is used, redirects are not followed, and no proxy is asked.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import errno
import hashlib
import hmac
import json
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver

from pandacea.errors import BadConfig, Unavailable
from pandacea_sdk.protocol.json_types import JsonObject

TIMEOUT_SECONDS: Final = 10.0
"""Default of `WebhookSettings.timeout_seconds`."""
CONNECT_SECONDS: Final = 5.0
BODY_SECONDS: Final = 2.0
"""For the answer's body."""
MAX_ANSWER_BYTES: Final = 16 * 1024
"""So much of an answer's body is read, and dropped."""
SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # the specification's mark, not a secret
MIN_SECRET_BYTES: Final = 24
MAX_SECRET_BYTES: Final = 64
_TRANSLATED: Final = IPv6Network("64:ff9b::/96")
"""NAT64: the last 32 bits are an IPv4 address."""
_PUBLIC_IPV6: Final = IPv6Network("2000::/3")
"""All that is assigned to the Internet; what lies elsewhere (local NAT64, site-local) some versions of Python call global."""


FindFault = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where events go, and with which key they are signed."""

    url: str
    secret: bytes
    allow_private: bool = False
    """Private, loopback and link-local addresses may be connected to, and plain http to them alone."""
    timeout_seconds: float = TIMEOUT_SECONDS
    """For one delivery: name, connection, request and answer."""


class WebhookSender:
    """`flows.ports.WebhookReceiver`: one request for each event, on a connection of its own."""

    def __init__(
        self, settings: WebhookSettings, resolver: AbstractResolver | None = None, find_fault: FindFault | None = None
    ) -> None:
        """Take the settings.

        Args:
            settings: where events go.
            resolver: asks for the addresses of names; default: the system.
            find_fault: returns why an address may not be connected to, or None; default: `find_address_fault`.
        """
        self._settings = settings
        self._find_fault = find_fault or self._find_address_fault
        self._resolver = resolver
        parts = urlsplit(settings.url)
        self._is_plain = parts.scheme == "http"
        self._name = parts.hostname or ""

    async def send(self, payload: JsonObject, now: float) -> None:
        """Send one signed event; `now`: when, in Unix seconds.

        Raises:
            Unavailable: the receiver is not reached, may not be, or answers with anything but 2xx; its words are not repeated.
        """
        body = json.dumps(payload, separators=(",", ":"), sort_keys=True).encode()
        headers = {"Content-Type": "application/json", **sign_webhook(self._settings.secret, str(payload["id"]), int(now), body)}
        connector = aiohttp.TCPConnector(
            resolver=self._resolver, use_dns_cache=False, force_close=True, socket_factory=self._make_socket
        )
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(
                    connector=connector,
                    timeout=timeout,
                    trust_env=False,
                    auto_decompress=False,
                    cookie_jar=aiohttp.DummyCookieJar(),
                ) as session,
                session.post(self._settings.url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                await _drop_body(answer)
                answer.close()  # whatever else would come
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as problem:
            raise Unavailable(f"The webhook at {self._name} is not reached: {_describe(problem)}.") from problem
        if not 200 <= answer.status < 300:
            followed = "; redirects are not followed" if 300 <= answer.status < 400 else ""
            raise Unavailable(f"The webhook at {self._name} answered {answer.status}{followed}.")

    def _make_socket(self, info: tuple[Any, ...]) -> socket.socket:
        """Make the socket for one address, unless it may not be connected to."""
        family, kind, protocol, _, address = info
        reason = self._find_fault(str(address[0]))
        if reason is not None:
            raise PermissionError(errno.EACCES, reason)
        return socket.socket(family, kind, protocol)

    def _find_address_fault(self, address: str) -> str | None:
        return find_address_fault(address, allow_private=self._settings.allow_private, is_plain=self._is_plain)


async def _drop_body(answer: aiohttp.ClientResponse) -> None:
    """Read a little, so that the receiver is not cut off in the middle of a short answer; its status has been said already."""
    left = MAX_ANSWER_BYTES
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(BODY_SECONDS):
            while left > 0 and (chunk := await answer.content.read(left)):
                left -= len(chunk)


def _describe(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    cause = problem.os_error if isinstance(problem, aiohttp.ClientConnectorError) else problem
    return getattr(cause, "strerror", None) or type(cause).__name__


def sign_webhook(secret: bytes, event_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the three headers of the Standard Webhooks specification; `timestamp` in Unix seconds."""
    signed = b".".join((event_id.encode(), str(timestamp).encode(), body))
    signature = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": event_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{signature}"}


def parse_secret(text: str) -> bytes:
    """Read a signing secret: `whsec_` and the base64 of 24 to 64 random bytes.

    Raises:
        BadConfig: it is none; the secret is not in the text.
    """
    try:
        secret = base64.b64decode(text.strip().removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not text.strip().startswith(SECRET_PREFIX) or not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise BadConfig(
            f"webhooks.secret_file must hold {SECRET_PREFIX} and the base64 of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random bytes. "
            f'Make one: (umask 077; echo "{SECRET_PREFIX}$(openssl rand -base64 32)" > FILE)'
        )
    return secret


def find_address_fault(address: str, *, allow_private: bool, is_plain: bool) -> str | None:
    """Return why an IP address may not be connected to; None: it may.

    Args:
        address: as the resolver gave it, perhaps with a zone.
        allow_private: whether private, loopback and link-local addresses are allowed.
        is_plain: whether plain http would be spoken, which is for private addresses only.
    """
    one = _unwrap_address(ip_address(address.partition("%")[0]))
    if one.is_multicast or one.is_unspecified or (isinstance(one, IPv4Address) and one == IPv4Address("255.255.255.255")):
        return f"{one} is nobody's address"
    if one.is_global and (isinstance(one, IPv4Address) or one in _PUBLIC_IPV6):
        return "plain http is for private addresses only; use https" if is_plain else None
    if not allow_private:
        return f"{one} is not a public address; webhooks.allow_private permits it"
    return None


def _unwrap_address(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address that an IPv6 address stands for: mapped, NAT64, 6to4 or Teredo; else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _TRANSLATED or (int(address) >> 32 == 0 and int(address) > 1):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else address)
