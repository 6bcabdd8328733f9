"""A proxy between node and anvil that does what anvil cannot: lie, lag, drop, shuffle, refuse, fall silent."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web


@dataclass
class ProxyAnswer:
    """An answer instead of the chain's: a JSON-RPC result or error, or a body that is not JSON-RPC."""

    result: Any = None
    error: dict[str, Any] | None = None
    status: int = 200
    body: bytes | None = None
    headers: dict[str, str] | None = None


Before = Callable[[str, list[Any]], Awaitable[ProxyAnswer | None]]
"""(method, params) -> an answer, or None to forward the call to the chain."""

After = Callable[[str, list[Any], Any], Any]
"""(method, params, the chain's result) -> the result to answer with."""


class FaultProxy:
    """`async with FaultProxy(url, ...)`: an endpoint that forwards to one or several chains and injects faults."""

    def __init__(self, *upstreams: str, seed: int = 1) -> None:
        """`upstreams`: asked in turn, as a load balancer does."""
        self.upstreams = list(upstreams)
        self.random = random.Random(seed)
        self.before: list[Before] = []
        self.after: list[After] = []
        self.calls: list[tuple[str, list[Any]]] = []
        self.refuse = False
        self.sockets: list[web.WebSocketResponse] = []
        self.silent = False
        """Accept WebSockets, forward nothing."""
        self.extra: list[str] = []
        self._turn = 0

    async def __aenter__(self) -> FaultProxy:
        self._session = aiohttp.ClientSession()
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_post("/", self._post)
        application.router.add_get("/", self._socket)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url, self.ws_url = f"http://127.0.0.1:{port}/", f"ws://127.0.0.1:{port}/"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await self.cut_sockets()
        await self._session.close()
        await self._runner.cleanup()

    async def cut_sockets(self) -> None:
        """Reset every WebSocket, as a network does: without a closing handshake."""
        for socket in self.sockets:
            transport = socket._req.transport if socket._req is not None else None
            if transport is not None:
                transport.abort()
        self.sockets.clear()

    async def _post(self, request: web.Request) -> web.StreamResponse:
        if self.refuse:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        asked = await request.json()
        method, params = asked["method"], asked["params"]
        self.calls.append((method, params))
        for rule in self.before:
            said = await rule(method, params)
            if said is not None:
                return _response(asked["id"], said)
        upstream = self.upstreams[self._turn % len(self.upstreams)]
        self._turn += 1
        async with self._session.post(upstream, json=asked) as response:
            answer = await response.json()
        if "result" in answer:
            for change in self.after:
                answer["result"] = change(method, params, answer["result"])
        return web.json_response(answer)

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        here = web.WebSocketResponse()
        await here.prepare(request)
        self.sockets.append(here)
        async with self._session.ws_connect(self.upstreams[0].replace("http", "ws", 1)) as there:

            async def up() -> None:
                async for message in here:
                    if message.type is WSMsgType.TEXT:
                        await there.send_str(message.data)
                    elif message.type is WSMsgType.BINARY:
                        await there.send_bytes(message.data)

            forward = asyncio.create_task(up())
            try:
                async for message in there:
                    if message.type is WSMsgType.TEXT and not self.silent and not here.closed:
                        await here.send_str(message.data)
                        for text in self.extra:
                            await here.send_str(text)
            except ConnectionError:
                pass  # the node went away
            finally:
                forward.cancel()
        return here


def _response(number: Any, said: ProxyAnswer) -> web.Response:
    if said.body is not None:
        return web.Response(status=said.status, body=said.body, headers=said.headers)
    answer: dict[str, Any] = {"jsonrpc": "2.0", "id": number}
    answer |= {"error": said.error} if said.error is not None else {"result": said.result}
    return web.Response(status=said.status, body=json.dumps(answer).encode(), content_type="application/json", headers=said.headers)


def answer_sometimes(proxy: FaultProxy, share: float, answer: ProxyAnswer, methods: Sequence[str] = ()) -> Before:
    """Answer a share of the calls of some methods (none named: all) with `answer`."""

    async def rule(method: str, _params: list[Any]) -> ProxyAnswer | None:
        if methods and method not in methods:
            return None
        return answer if proxy.random.random() < share else None

    return rule


def answer_first(count: int, answer: ProxyAnswer, methods: Sequence[str] = ()) -> Before:
    """Answer the first `count` calls of some methods (none named: all) with `answer`."""
    left = [count]

    async def rule(method: str, _params: list[Any]) -> ProxyAnswer | None:
        if (methods and method not in methods) or left[0] == 0:
            return None
        left[0] -= 1
        return answer

    return rule


def answer_late(seconds: float, methods: Sequence[str] = ()) -> Before:
    """Delay the calls of some methods (none named: all) by so many seconds."""

    async def rule(method: str, _params: list[Any]) -> ProxyAnswer | None:
        if not methods or method in methods:
            await asyncio.sleep(seconds)
        return None

    return rule
