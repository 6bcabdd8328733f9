"""One JSON-RPC endpoint over HTTP: web3's provider interface underneath, our own decoding and limits on top."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint

from pandacea.chain.rpc_faults import FaultKind, RpcFault, classify_rpc_error, describe_exception
from pandacea.chain.rpc_messages import BlockHeader, RpcResponse, parse_data, parse_quantity
from pandacea.domain.endpoint_operator import operator_of
from pandacea_sdk.protocol.redaction import redact_url

T = TypeVar("T")

MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024
"""An answer larger than this is cut off and the range halved: memory stays bounded whatever the endpoint sends."""

_TOO_LARGE: Final = 413


class RawHttpProvider(AsyncJSONBaseProvider):
    """web3's provider interface, answering with the raw bytes.

    web3's own HTTP provider opens a connection per request, retries by itself, follows redirects and logs its URL; its result
    formatters cost a hundred times what parsing does. None of that here.
    """

    def __init__(self, url: str, timeout: float, max_bytes: int) -> None:
        """`timeout` in seconds bounds one request from connect to last byte, `most` the bytes of its answer."""
        super().__init__()
        self.endpoint_uri = url
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 10.0))
        self._session: aiohttp.ClientSession | None = None

    async def make_request(self, method: RPCEndpoint, params: Any) -> Any:
        """Post one request; returns (HTTP status, Retry-After in seconds, body)."""
        body = msgspec.json.encode(self.form_request(method, params))
        async with self._open().post(self.endpoint_uri, data=body, allow_redirects=False) as answer:
            return answer.status, _seconds(answer.headers.get("Retry-After", "")), await _read(answer, self._max_bytes)

    async def disconnect(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                headers={"Content-Type": "application/json"},
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=16, keepalive_timeout=60),
            )
        return self._session


_HICCUPS: Final = frozenset({FaultKind.HTTP, FaultKind.MALFORMED, FaultKind.NULL})


class _ResponseTooLargeError(Exception):
    """The body is beyond what is read."""


async def _read(answer: aiohttp.ClientResponse, most: int) -> bytes | bytearray:
    if (answer.content_length or 0) > most:
        raise _ResponseTooLargeError
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > most:
            raise _ResponseTooLargeError
    return body


def _seconds(text: str) -> int:
    return min(int(text), 3600) if text.strip().isdigit() else 0


class Endpoint:
    """One RPC URL: calls with typed answers, and what is known of its health."""

    def __init__(
        self, url: str, *, operator: str | None = None, timeout: float = 20.0, max_bytes: int = MAX_RESPONSE_BYTES
    ) -> None:
        """`operator`: who runs it, where the host name does not tell; `timeout` in seconds and `most` bytes of answer for one call."""
        self.name = redact_url(url)
        self.url = url
        self.operator = operator_of(url, operator)
        """Endpoints of one operator are one voice."""
        self._max_bytes = max_bytes
        self._provider = RawHttpProvider(url, timeout, max_bytes)
        self.calls = 0
        self.fault_counts: dict[FaultKind, int] = {}
        self.failures_in_a_row = 0
        """In a row."""
        self.backoff_until = 0.0
        """`time.monotonic()` before which it is left alone."""
        self.last_resort_backoff_until = 0.0
        """The same while every other endpoint rests, too."""
        self.verified = False
        """Chain id and code were checked since its last fault of the network."""
        self.head = -1

    async def call_method(self, method: str, params: list[Any], shape: type[T]) -> T:
        """One call; the answer is decoded from bytes into `shape`.

        Raises:
            RpcFault: whatever went wrong, classified. A null answer is a fault: it never means "nothing there".
        """
        for pause in (0.05, 0.0):
            try:
                answer = await self.call_nullable(method, params, shape)
                if answer is None:
                    raise self._fault(FaultKind.NULL, method, "answered null")
            except RpcFault as fault:
                # Once more at once: a proxy's hiccup, or a balancer's other node. Then it is the caller's to wait.
                if fault.kind not in _HICCUPS or fault.retry_after or not pause:
                    raise
                await asyncio.sleep(pause)
            else:
                return answer
        raise AssertionError("unreachable")

    async def call_nullable(self, method: str, params: list[Any], shape: type[T]) -> T | None:
        """The same where null is an answer (a transaction or a block by hash that the endpoint does not know)."""
        self.calls += 1
        try:
            status, wait, body = await self._provider.make_request(RPCEndpoint(method), params)
        except TimeoutError as problem:
            raise self._fault(FaultKind.TIMEOUT, method, "no answer in time") from problem
        except _ResponseTooLargeError as problem:
            raise self._fault(FaultKind.RANGE, method, f"answer beyond {self._max_bytes} bytes") from problem
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise self._fault(FaultKind.NETWORK, method, describe_exception(problem)) from problem
        return self._decode(method, status, wait, body, shape)

    def _decode(self, method: str, status: int, wait: int, body: bytes | bytearray, shape: type[T]) -> T | None:
        try:
            response = _decoder(shape).decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:  # the last: nested a thousand times
            if status == 429:
                raise self._fault(FaultKind.RATE_LIMIT, method, "HTTP 429", retry_after=wait) from problem
            if status == _TOO_LARGE:
                raise self._fault(FaultKind.RANGE, method, "HTTP 413") from problem
            if status >= 300:
                raise self._fault(FaultKind.HTTP, method, f"HTTP {status}", retry_after=wait) from problem
            raise self._fault(FaultKind.MALFORMED, method, describe_exception(problem)) from problem
        if response.error is not None:
            kind, hint = classify_rpc_error(response.error)
            if status == 429:
                kind = FaultKind.RATE_LIMIT
            detail = f"error {response.error.code}: {response.error.message[:300]}"
            raise self._fault(
                kind, method, detail, retry_after=wait, range_hint=hint, data=response.error.data, rpc_code=response.error.code
            )
        if status >= 300:
            raise self._fault(FaultKind.RATE_LIMIT if status == 429 else FaultKind.HTTP, method, f"HTTP {status}", retry_after=wait)
        return response.result

    def _fault(self, kind: FaultKind, method: str, detail: str, **more: Any) -> RpcFault:
        self.fault_counts[kind] = self.fault_counts.get(kind, 0) + 1
        return RpcFault(kind, self.name, method, detail, **more)

    def inconsistent_fault(self, method: str, detail: str) -> RpcFault:
        """What it answered contradicts itself or the question."""
        return self._fault(FaultKind.INCONSISTENT, method, detail)

    def wrong_chain_fault(self, detail: str) -> RpcFault:
        """It is not an endpoint of our chain."""
        return self._fault(FaultKind.WRONG_CHAIN, "eth_chainId", detail)

    async def get_header(self, block: int | str) -> BlockHeader:
        """A block's header by number or tag; null is a fault."""
        return self._checked(block, await self.call_method("eth_getBlockByNumber", [_quantity(block), False], BlockHeader))

    async def get_header_nullable(self, tag: str) -> BlockHeader | None:
        """The same where null is an answer: a tag that the chain does not have yet."""
        answer = await self.call_nullable("eth_getBlockByNumber", [tag, False], BlockHeader)
        return None if answer is None else self._checked(tag, answer)

    def _checked(self, block: int | str, header: BlockHeader) -> BlockHeader:
        try:
            found = header.to_block_ref()
        except ValueError as problem:
            raise self._fault(FaultKind.MALFORMED, "eth_getBlockByNumber", f"a header that is none: {problem}") from problem
        if isinstance(block, int) and found.number != block:
            raise self.inconsistent_fault("eth_getBlockByNumber", f"asked for block {block}, got {found.number}")
        header.hash, header.parent_hash = found.hash, found.parent
        return header

    async def get_chain_id(self) -> int:
        """`eth_chainId`."""
        return await self.call_quantity("eth_chainId", [])

    async def get_code(self, address: str, block: int | str = "latest") -> bytes:
        """`eth_getCode`; empty for an account without code."""
        return self._bytes(await self.call_method("eth_getCode", [address, _quantity(block)], str), "eth_getCode")

    async def eth_call(self, to: str, data: str, block: int | str = "latest", *, gas: int | None = None) -> bytes:
        """`eth_call` with no sender, and at most `gas` (None: what the endpoint allows); the returned bytes."""
        asked = {"to": to, "data": data} | ({} if gas is None else {"gas": hex(gas)})
        return self._bytes(await self.call_method("eth_call", [asked, _quantity(block)], str), "eth_call")

    def parse_number(self, text: str, method: str) -> int:
        """A number inside an answer to `method`."""
        try:
            return parse_quantity(text)
        except ValueError as problem:
            raise self._fault(FaultKind.MALFORMED, method, str(problem)) from problem

    def _bytes(self, text: str, method: str) -> bytes:
        try:
            return parse_data(text)
        except ValueError as problem:
            raise self._fault(FaultKind.MALFORMED, method, str(problem)) from problem

    async def call_quantity(self, method: str, params: list[Any]) -> int:
        """A call whose answer is one hex number."""
        return self.parse_number(await self.call_method(method, params, str), method)

    def back_off(self, seconds: float) -> None:
        """Leave it alone for a while."""
        self.backoff_until = self.last_resort_backoff_until = time.monotonic() + seconds

    async def close(self) -> None:
        """Close its connections."""
        await self._provider.disconnect()
        await asyncio.sleep(0)


_decoders: dict[Any, Any] = {}


def _decoder(shape: type[T]) -> msgspec.json.Decoder[RpcResponse[T]]:
    decoder = _decoders.get(shape)
    if decoder is None:
        decoder = _decoders[shape] = msgspec.json.Decoder(RpcResponse[shape])  # type: ignore[valid-type]
    return decoder


def _quantity(block: int | str) -> str:
    return hex(block) if isinstance(block, int) else block
