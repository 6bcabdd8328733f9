"""HTTP to one node: signed requests, bounded answers, no redirects, retries only where they are safe."""

from __future__ import annotations

import asyncio
import base64
import random
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from pandacea_sdk.errors import NodeError, NodeUnavailable, PandaceaError, error_from_problem, error_from_protocol, usage_error
from pandacea_sdk.protocol import strict_json
from pandacea_sdk.protocol.hashing import Signer
from pandacea_sdk.protocol.limits import MIB
from pandacea_sdk.protocol.loopback import is_loopback
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.signing import RequestHead, SigningPolicy, parse_signed_request, sign_request

MAX_ANSWER_BYTES: Final = 512 * MIB
"""A larger body is not read to its end."""
MAX_ATTEMPTS: Final = 4
"""Of one request, the first included."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme and authority of a node: all requests go there and nowhere else."""

    scheme: str
    authority: str

    @classmethod
    def from_url(cls, base_url: str, *, insecure_http: bool = False) -> Origin:
        """Parse `http(s)://host[:port]`.

        Raises:
            UsageError: it is something else, or plain http to another machine without `insecure_http`.
        """
        parts = urlsplit(base_url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        more = parts.path not in {"", "/"} or parts.query or parts.fragment or "@" in parts.netloc
        if parts.scheme not in _DEFAULT_PORTS or not host or more:
            raise usage_error(f"{base_url!a} is not the address of a node: give http(s)://host[:port] and nothing more.")
        if parts.scheme == "http" and not insecure_http and not is_loopback(host):
            raise usage_error(
                f"{base_url!a} would send your script and results in the clear: use https, or pass insecure_http=True."
            )
        if not host.isascii():
            raise usage_error(f"{base_url!a}: write the host name in ASCII (punycode).")
        shown = f"[{host}]" if ":" in host else host
        return cls(parts.scheme, shown if port in {None, _DEFAULT_PORTS[parts.scheme]} else f"{shown}:{port}")

    def url(self, target: str) -> URL:
        """Build the URL of `target`, which is sent exactly as it is signed."""
        return URL(f"{self.scheme}://{self.authority}{target}", encoded=True)


@dataclass(frozen=True, slots=True)
class Reply:
    """A node's answer that is not a problem."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Parse the body as strict JSON.

        Raises:
            NodeError: it is not JSON.
        """
        try:
            return strict_json.parse_json(self.body, max_depth=64)
        except ProtocolError as error:
            raise NodeError("bad-answer", f"The node's answer cannot be read: {error.detail}", status=self.status) from None


@dataclass(frozen=True, slots=True)
class StreamedReply:
    """A node's answer that is not a problem, and the pieces of its body as they come."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    pieces: AsyncIterator[bytes] = field(repr=False)


class Transport:
    """HTTP connections to one node."""

    def __init__(self, origin: Origin, signer: Signer | None, *, timeout: float = 60.0, tls: ssl.SSLContext | None = None) -> None:
        """`timeout`: seconds for one request; `tls`: a context of the caller's own, for a private certificate authority."""
        self.origin = origin
        self.signer = signer
        self._timeout = timeout
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    def sibling(self, base_url: str, *, insecure_http: bool = False) -> Transport:
        """Make a transport to another node with the same timeout and certificate authorities, and without a key.

        Raises:
            UsageError: as `Origin.from_url`.
        """
        return Transport(Origin.from_url(base_url, insecure_http=insecure_http), None, timeout=self._timeout, tls=self._tls)

    async def close(self) -> None:
        """Close the connections to the node."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def sign_headers(
        self, method: str, target: str, chain_id: int, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> dict[str, str]:
        """Sign a request; returns the headers to add, valid once and for a minute.

        Raises:
            UsageError: no key was given.
        """
        if self.signer is None:
            raise usage_error("This request must be signed and there is no key: pass key= or set PANDACEA_PRIVATE_KEY.")
        try:
            return sign_request(
                self.signer,
                method=method,
                authority=self.origin.authority,
                target=target,
                chain_id=chain_id,
                created=int(time.time()),
                nonce=base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("="),
                headers=headers,
                body=body,
            )
        except ProtocolError as error:
            raise error_from_protocol(error) from None

    async def send(
        self,
        method: str,
        target: str,
        *,
        chain_id: int | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        seconds: float | None = None,
        max_bytes: int = MAX_ANSWER_BYTES,
    ) -> Reply:
        """Send one request and read its whole answer; the request is signed when `chain_id` is given.

        Raises:
            PandaceaError: its class fits the problem; `NodeUnavailable` (`no-answer`) when there was no answer.
        """
        sent = dict(headers or {})
        if chain_id is not None:
            sent |= self.sign_headers(method, target, chain_id, headers, body)
        async with self._open(method, target, sent, body, seconds) as answer:
            raw = await _bounded(answer, max_bytes)
            if answer.status >= 300:
                raise _refusal(answer, raw)
            return Reply(answer.status, answer.headers, raw)

    @asynccontextmanager
    async def open_stream(
        self, target: str, *, chain_id: int, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[StreamedReply]:
        """Send a signed GET and read its answer piece by piece; `timeout` bounds the wait for each piece, not the whole.

        Raises:
            PandaceaError: as `send`, also while pieces are read.
        """
        sent = {**(headers or {}), **self.sign_headers("GET", target, chain_id, headers)}
        async with self._open("GET", target, sent, None, None, streamed=True) as answer:
            if answer.status >= 300:
                raise _refusal(answer, await _bounded(answer, MIB))
            yield StreamedReply(answer.status, answer.headers, answer.content.iter_any())

    async def with_retries(self, attempt: Callable[[], Awaitable[Reply]], seconds: float) -> Reply:
        """Call `attempt` until it succeeds, at most `MAX_ATTEMPTS` times within `seconds`; only for what may safely happen twice."""
        deadline = time.monotonic() + seconds
        for number in range(1, MAX_ATTEMPTS + 1):
            try:
                return await attempt()
            except NodeUnavailable as error:
                pause = error.retry_after if error.retry_after is not None else 0.25 * 2**number
                pause *= random.SystemRandom().uniform(1, 1.25)  # so that many clients do not come back at once
                if number == MAX_ATTEMPTS or time.monotonic() + pause > deadline:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def hash_signed_request(self, method: str, target: str, headers: Mapping[str, str], chain_id: int) -> str:
        """Compute the hash by which manifest and computation id name a request signed with these headers."""
        lines = [("host", self.origin.authority), *((name.lower(), value) for name, value in headers.items())]
        policy = SigningPolicy(chain_id, frozenset({self.origin.authority}))
        return parse_signed_request(RequestHead(method, target, lines), policy, time.time()).request_hash

    @asynccontextmanager
    async def _open(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        seconds: float | None,
        *,
        streamed: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True, limit=16)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={"Accept-Encoding": "identity", "User-Agent": "pandacea-sdk"},
            )
        total = None if streamed else seconds or self._timeout
        limits = aiohttp.ClientTimeout(total=total, sock_connect=10, sock_read=self._timeout if streamed else None)
        try:
            async with self._session.request(
                method,
                self.origin.url(target),
                data=body,
                headers={**headers, "Host": self.origin.authority},
                timeout=limits,
                allow_redirects=False,
            ) as answer:
                yield answer
        except TimeoutError:
            raise NodeUnavailable("no-answer", f"{self.origin.authority} did not answer in time.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise NodeUnavailable("no-answer", f"{self.origin.authority} cannot be reached: {error}.") from error


async def _bounded(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read an answer piece by piece, so that one without end stops at the cap."""
    pieces, size = [], 0
    async for piece in answer.content.iter_any():
        size += len(piece)
        if size > max_bytes:
            answer.close()
            raise NodeError("bad-answer", f"The answer is larger than {max_bytes:,} bytes.", status=answer.status)
        pieces.append(piece)
    return b"".join(pieces)


def _refusal(answer: aiohttp.ClientResponse, raw: bytes) -> PandaceaError:
    if answer.status < 400:
        return NodeError("bad-answer", f"The node answered {answer.status}, a redirect; it is not followed.", status=answer.status)
    try:
        body = strict_json.parse_json(raw) if answer.content_type == "application/problem+json" else None
    except ProtocolError:
        body = None
    error = error_from_problem(body, answer.status)
    if error.retry_after is None:
        pause = answer.headers.get("Retry-After", "")
        error.retry_after = int(pause) if pause.isascii() and pause.isdigit() and len(pause) < 6 else None
    return error
