"""JSON-RPC 2.0 over HTTP, on aiohttp alone."""

from __future__ import annotations

import itertools
import json
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp

from pandacea_sdk.chain.errors import RpcRefused, RpcUnavailable
from pandacea_sdk.protocol.ids import HEX_BYTES, HEX_QUANTITY
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.limits import MIB
from pandacea_sdk.protocol.loopback import is_loopback
from pandacea_sdk.protocol.redaction import redact_url

MAX_ANSWER_BYTES: Final = 16 * MIB
"""A larger answer is refused."""


class JsonRpcClient:
    """Client of one endpoint. Its URL may hold an API key, so errors name only scheme, host and port."""

    def __init__(self, url: str, *, timeout: float = 15.0, allow_http: bool = False) -> None:
        """`timeout`: seconds for one call. `allow_http`: accept plain http to another machine.

        Raises:
            ValueError: the URL is neither https nor http to this machine.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("an RPC endpoint is an http or https URL")
        if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
            raise ValueError(
                f"plain http to {parts.hostname} lets anyone on the way answer for the chain: use https, or allow_http=True"
            )
        self._url = url
        self._name = redact_url(url)
        self._timeout = timeout
        self._ids = itertools.count(1)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def call(self, method: str, *params: object) -> Any:
        """Call a method and return its `result`, which may be null.

        Raises:
            RpcUnavailable: there was no answer in time, or it is not JSON-RPC.
            RpcRefused: the endpoint answered with an error.
        """
        answer = await self._post({"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)})
        error = answer.get("error")
        if error is not None:
            known = error if isinstance(error, dict) else {}
            code = known.get("code")
            raise RpcRefused(method, code if isinstance(code, int) else 0, str(known.get("message", error)), known.get("data"))
        if "result" not in answer:
            raise RpcUnavailable(f"{self._name} answered {method} with neither result nor error")
        return answer["result"]

    async def call_for_quantity(self, method: str, *params: object) -> int:
        """Call a method that answers with a number."""
        found = await self.call(method, *params)
        if not isinstance(found, str) or not HEX_QUANTITY.fullmatch(found):
            raise RpcUnavailable(f"{self._name} answered {method} with {str(found)[:80]!r}, which is not a hex quantity")
        return int(found, 16)

    async def call_for_bytes(self, method: str, *params: object) -> bytes:
        """Call a method that answers with bytes."""
        found = await self.call(method, *params)
        if not isinstance(found, str) or not HEX_BYTES.fullmatch(found):
            raise RpcUnavailable(f"{self._name} answered {method} with {str(found)[:80]!r}, which are not hex bytes")
        return bytes.fromhex(found[2:])

    async def _post(self, request: JsonObject) -> JsonObject:
        if self._session is None:
            raise RuntimeError("use `async with` to open the connection first")
        try:
            async with self._session.post(self._url, json=request, allow_redirects=False) as response:
                body = await response.content.read(MAX_ANSWER_BYTES + 1)
                while len(body) <= MAX_ANSWER_BYTES and (more := await response.content.read(MAX_ANSWER_BYTES + 1 - len(body))):
                    body += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RpcUnavailable(f"{self._name} did not answer {request['method']}: {type(error).__name__}") from None
        if len(body) > MAX_ANSWER_BYTES:
            raise RpcUnavailable(f"{self._name} answered {request['method']} with more than {MAX_ANSWER_BYTES} bytes")
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise RpcUnavailable(f"{self._name} answered {request['method']} with HTTP {response.status} and not with JSON-RPC")
        return answer
