"""One JSON-RPC endpoint over HTTP: web3's provider interface, with decoding and limits of our own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import aiohttp
import msgspec
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import RPCEndpoint

from pandacea.chain.rpc_faults import FaultKind, RangeHint, RpcFault, classify_rpc_error, describe_exception
from pandacea.chain.rpc_messages import BlockHeader, JsonRpcError, RpcResponse, parse_data, parse_quantity
from pandacea.domain.endpoint_operator import operator_of
from pandacea_sdk.protocol.redaction import redact_url

T = TypeVar("T")

MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024
"""A larger answer is not read and the range of blocks is halved, so memory stays bounded whatever an endpoint sends."""

_TOO_LARGE: Final = 413


class RawHttpProvider(AsyncJSONBaseProvider):
    """A web3 provider that returns the raw bytes of an answer.

    web3's own HTTP provider opens a connection per request, retries by itself, follows redirects and logs its URL; web3's result
    formatters cost a hundred times as much as parsing does (`docs/adr/0090-what-rests-on-web3.md`).
    """

    def __init__(self, url: str, timeout: float, max_bytes: int) -> None:
        """`timeout`: seconds for one request from connecting to the last byte; `max_bytes`: of its answer."""
        super().__init__()
        self.endpoint_uri = url
        self._max_bytes = max_bytes
        self._timeout = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, 10.0))
        self._session: aiohttp.ClientSession | None = None

    async def make_request(self, method: RPCEndpoint, params: object) -> Any:
        """Post one request; return (HTTP status, Retry-After in seconds, body)."""
        body = msgspec.json.encode(self.form_request(method, params))
        async with self._open().post(self.endpoint_uri, data=body, allow_redirects=False) as answer:
            return answer.status, _seconds(answer.headers.get("Retry-After", "")), await _read(answer, self._max_bytes)

    async def disconnect(self) -> None:
        """Close the open connections."""
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


_RETRIED_AT_ONCE: Final = frozenset({FaultKind.HTTP, FaultKind.MALFORMED, FaultKind.NULL})


class _ResponseTooLargeError(Exception):
    """The body has more bytes than are read."""


async def _read(answer: aiohttp.ClientResponse, max_bytes: int) -> bytes | bytearray:
    if (answer.content_length or 0) > max_bytes:
        raise _ResponseTooLargeError
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > max_bytes:
            raise _ResponseTooLargeError
    return body


def _seconds(text: str) -> int:
    return min(int(text), 3600) if text.strip().isdigit() else 0


class Endpoint:
    """One RPC URL: typed calls, and the state of its health."""

    def __init__(
        self, url: str, *, operator: str | None = None, timeout: float = 20.0, max_bytes: int = MAX_RESPONSE_BYTES
    ) -> None:
        """`operator`: who runs it, where the host name does not tell; `timeout`: seconds for one call; `max_bytes`: of one answer."""
        self.name = redact_url(url)
        self.url = url
        self.operator = operator_of(url, operator)
        """Endpoints of one operator count as one source."""
        self._max_bytes = max_bytes
        self._provider = RawHttpProvider(url, timeout, max_bytes)
        self.calls = 0
        self.fault_counts: dict[FaultKind, int] = {}
        self.failures_in_a_row = 0
        """Since its last useful answer."""
        self.backoff_until = 0.0
        """`time.monotonic()` before which it is not asked."""
        self.last_resort_backoff_until = 0.0
        """The same, while every other endpoint backs off too."""
        self.verified = False
        """Whether chain id and code were checked since its last network fault."""
        self.head = -1

    async def call_method(self, method: str, params: Sequence[object], shape: type[T]) -> T:
        """Call a method and decode the answer into `shape`.

        Raises:
            RpcFault: the call failed, for a reason it classifies; a null answer counts as a failure.
        """
        for pause in (0.05, 0.0):
            try:
                answer = await self.call_nullable(method, params, shape)
                if answer is None:
                    raise self._fault(FaultKind.NULL, method, "answered null")
            except RpcFault as fault:
                # A second attempt may reach another node behind the load balancer. After that the caller waits.
                if fault.kind not in _RETRIED_AT_ONCE or fault.retry_after or not pause:
                    raise
                await asyncio.sleep(pause)
            else:
                return answer
        raise AssertionError("unreachable")

    async def call_nullable(self, method: str, params: Sequence[object], shape: type[T]) -> T | None:
        """Call a method whose answer may be null (a transaction or a block that the endpoint does not have)."""
        self.calls += 1
        try:
            status, wait, body = await self._provider.make_request(RPCEndpoint(method), params)
        except TimeoutError as error:
            raise self._fault(FaultKind.TIMEOUT, method, "no answer in time") from error
        except _ResponseTooLargeError as error:
            raise self._fault(FaultKind.RANGE, method, f"answer beyond {self._max_bytes} bytes") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._fault(FaultKind.NETWORK, method, describe_exception(error)) from error
        return self._decode(method, status, wait, body, shape)

    def _decode(self, method: str, status: int, wait: int, body: bytes | bytearray, shape: type[T]) -> T | None:
        try:
            response = _decoder(shape).decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:  # RecursionError: JSON nested too deep
            if status == 429:
                raise self._fault(FaultKind.RATE_LIMIT, method, "HTTP 429", retry_after=wait) from error
            if status == _TOO_LARGE:
                raise self._fault(FaultKind.RANGE, method, "HTTP 413") from error
            if status >= 300:
                raise self._fault(FaultKind.HTTP, method, f"HTTP {status}", retry_after=wait) from error
            raise self._fault(FaultKind.MALFORMED, method, describe_exception(error)) from error
        if response.error is not None:
            kind, hint = classify_rpc_error(response.error)
            if status == 429:
                kind = FaultKind.RATE_LIMIT
            detail = f"error {response.error.code}: {response.error.message[:300]}"
            raise self._fault(kind, method, detail, retry_after=wait, error=response.error, range_hint=hint)
        if status >= 300:
            raise self._fault(FaultKind.RATE_LIMIT if status == 429 else FaultKind.HTTP, method, f"HTTP {status}", retry_after=wait)
        return response.result

    def _fault(
        self,
        kind: FaultKind,
        method: str,
        detail: str,
        *,
        retry_after: int = 0,
        error: JsonRpcError | None = None,
        range_hint: RangeHint | None = None,
    ) -> RpcFault:
        self.fault_counts[kind] = self.fault_counts.get(kind, 0) + 1
        data, code = (None, 0) if error is None else (error.data, error.code)
        return RpcFault(kind, self.name, method, detail, retry_after=retry_after, range_hint=range_hint, data=data, rpc_code=code)

    def inconsistent_fault(self, method: str, detail: str) -> RpcFault:
        """Build the fault of an answer that contradicts itself or the request."""
        return self._fault(FaultKind.INCONSISTENT, method, detail)

    def wrong_chain_fault(self, detail: str) -> RpcFault:
        """Build the fault of an endpoint that does not serve the configured chain or contract."""
        return self._fault(FaultKind.WRONG_CHAIN, "eth_chainId", detail)

    async def get_header(self, block: int | str) -> BlockHeader:
        """Get a block's header by number or tag; null is a fault."""
        return self._checked(block, await self.call_method("eth_getBlockByNumber", [_quantity(block), False], BlockHeader))

    async def get_header_nullable(self, tag: str) -> BlockHeader | None:
        """Get a block's header by tag; None while the chain has no such block."""
        answer = await self.call_nullable("eth_getBlockByNumber", [tag, False], BlockHeader)
        return None if answer is None else self._checked(tag, answer)

    def _checked(self, block: int | str, header: BlockHeader) -> BlockHeader:
        try:
            found = header.to_block_ref()
        except ValueError as error:
            raise self._fault(FaultKind.MALFORMED, "eth_getBlockByNumber", f"malformed header: {error}") from error
        if isinstance(block, int) and found.number != block:
            raise self.inconsistent_fault("eth_getBlockByNumber", f"asked for block {block}, got {found.number}")
        header.hash, header.parent_hash = found.hash, found.parent
        return header

    async def get_chain_id(self) -> int:
        """Get the chain id (`eth_chainId`)."""
        return await self.call_quantity("eth_chainId", [])

    async def get_code(self, address: str, block: int | str = "latest") -> bytes:
        """Get an account's code (`eth_getCode`); empty for an account without code."""
        return self._bytes(await self.call_method("eth_getCode", [address, _quantity(block)], str), "eth_getCode")

    async def eth_call(self, to: str, data: str, block: int | str = "latest", *, gas: int | None = None) -> bytes:
        """Call a contract without a sender (`eth_call`) and return the bytes; `gas`: its limit, None for the endpoint's own."""
        asked = {"to": to, "data": data} | ({} if gas is None else {"gas": hex(gas)})
        return self._bytes(await self.call_method("eth_call", [asked, _quantity(block)], str), "eth_call")

    def parse_number(self, text: str, method: str) -> int:
        """Parse a number inside an answer to `method`; a malformed one is a fault."""
        try:
            return parse_quantity(text)
        except ValueError as error:
            raise self._fault(FaultKind.MALFORMED, method, str(error)) from error

    def _bytes(self, text: str, method: str) -> bytes:
        try:
            return parse_data(text)
        except ValueError as error:
            raise self._fault(FaultKind.MALFORMED, method, str(error)) from error

    async def call_quantity(self, method: str, params: Sequence[object]) -> int:
        """Call a method whose answer is one number."""
        return self.parse_number(await self.call_method(method, params, str), method)

    def back_off(self, seconds: float) -> None:
        """Do not ask this endpoint for so many seconds."""
        self.backoff_until = self.last_resort_backoff_until = time.monotonic() + seconds

    async def close(self) -> None:
        """Close the endpoint's connections."""
        await self._provider.disconnect()
        await asyncio.sleep(0)


_decoders: dict[object, Any] = {}


def _decoder(shape: type[T]) -> msgspec.json.Decoder[RpcResponse[T]]:
    decoder = _decoders.get(shape)
    if decoder is None:
        decoder = _decoders[shape] = msgspec.json.Decoder(RpcResponse[shape])  # type: ignore[valid-type]  # a type built at run time
    return decoder


def _quantity(block: int | str) -> str:
    return hex(block) if isinstance(block, int) else block
