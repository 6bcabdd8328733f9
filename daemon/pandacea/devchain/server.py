"""Serves the embedded chain on loopback: JSON-RPC 2.0 over HTTP, and a queue that mines as fast as the clock allows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self

from aiohttp import web

from pandacea.devchain import rpc_encoding
from pandacea.devchain.ledger import DevLedger
from pandacea.devchain.model import DevAccount, ExecutionReverted, TransactionRefused
from pandacea.devchain.rpc_methods import METHODS, InvalidParams, Params
from pandacea.errors import Refused
from pandacea_sdk.protocol.json_types import JsonObject

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
HOST: Final = "127.0.0.1"

_PARSE_ERROR, _INVALID_REQUEST, _NO_METHOD, _INVALID_PARAMS, _SERVER_ERROR, _REVERTED = -32700, -32600, -32601, -32602, -32000, 3


class DevChain:
    """The embedded chain: `async with DevChain(port=0) as chain:` serves it at `chain.url` with ten funded `chain.accounts`.

    Each transaction is mined at once, and an empty block when a request finds the head a second old. In a burst, blocks are at most ten
    seconds ahead of the clock; then several transactions share the next block.
    """

    def __init__(self, port: int = 0, clock: Callable[[], float] = time.time) -> None:
        """`port`: TCP port on loopback; 0 takes a free one. `clock`: Unix seconds."""
        self._port = port
        self._ledger = DevLedger(clock)
        self._queue: list[tuple[bytes, asyncio.Future[bytes]]] = []
        self._mining: asyncio.Task[None] | None = None
        self._runner: web.AppRunner | None = None
        self.url = ""

    @property
    def accounts(self) -> tuple[DevAccount, ...]:
        """Ten accounts with a million ether each. Their keys are public: never use them elsewhere."""
        return self._ledger.accounts

    @property
    def ledger(self) -> DevLedger:
        """The chain itself, for code in this process."""
        return self._ledger

    def time_travel(self, seconds: int) -> None:
        """Move the chain's time `seconds` > 0 forward and mine an empty block."""
        self._ledger.advance_time(seconds)

    def fund(self, address: str, wei: int) -> None:
        """Send ether from the last of the accounts to an address, in a block of its own.

        Raises:
            Refused: the address is malformed.
        """
        self._ledger.fund(address, wei)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_post("/", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://{HOST}:{self._port}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._mining is not None:
            self._mining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._mining
        if self._runner is not None:
            await self._runner.cleanup()

    # ---------------------------------------------------------------------------------------------- JSON-RPC

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            asked = json.loads(await request.read())
        except ValueError:
            return web.json_response(_error(None, _PARSE_ERROR, "the body is not JSON"))
        if isinstance(asked, list):
            return web.json_response([await self._answer_one(entry) for entry in asked])
        return web.json_response(await self._answer_one(asked))

    async def _answer_one(self, asked: object) -> JsonObject:
        if not isinstance(asked, Mapping) or not isinstance(asked.get("method"), str):
            return _error(None, _INVALID_REQUEST, "a request is an object with a method")
        identity, method, params = asked.get("id"), asked["method"], asked.get("params") or []
        if not isinstance(params, list):
            return _error(identity, _INVALID_PARAMS, "params must be a list")
        try:
            return {"jsonrpc": "2.0", "id": identity, "result": await self._run(method, params)}
        except ExecutionReverted as error:
            return _error(identity, _REVERTED, error.detail, rpc_encoding.encode_data(error.data))
        except Refused as error:
            return _error(identity, _CODES.get(type(error), _SERVER_ERROR), error.detail)

    async def _run(self, method: str, params: Params) -> object:
        if method == "eth_sendRawTransaction":
            return rpc_encoding.encode_data(await self._send(params))
        found = METHODS.get(method)
        if found is None:
            raise _NoMethod(f"the method {method} does not exist on the embedded chain")
        self._ledger.mine_if_stale()
        return found(self._ledger, params)

    # ---------------------------------------------------------------------------------------------- mining

    async def _send(self, params: Params) -> bytes:
        if not params or not isinstance(params[0], str):
            raise InvalidParams("parameter 1 (raw transaction) is missing")
        try:
            raw = bytes.fromhex(params[0].removeprefix("0x"))
        except ValueError:
            raise InvalidParams(f"a raw transaction is hex, not {params[0][:80]!r}") from None
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._queue.append((raw, answer))
        if self._mining is None or self._mining.done():
            self._mining = asyncio.create_task(self._mine())
        return await answer

    async def _mine(self) -> None:
        while self._queue:
            while (seconds := self._ledger.seconds_until_next_block()) > 0:
                await asyncio.sleep(seconds)
            batch, self._queue = self._queue, []
            try:
                results = self._ledger.mine_transactions([raw for raw, _ in batch])
            except BaseException as error:
                for _, answer in batch:  # every waiting request fails with it
                    answer.set_exception(error)
                raise
            for (_, answer), result in zip(batch, results, strict=True):
                if answer.cancelled():
                    continue
                if isinstance(result, TransactionRefused):
                    answer.set_exception(result)
                else:
                    answer.set_result(result)


class _NoMethod(Refused):
    """The embedded chain has no such method."""

    code = "no-method"


_CODES: Final[Mapping[type[Refused], int]] = {InvalidParams: _INVALID_PARAMS, _NoMethod: _NO_METHOD}


def _error(identity: object, code: int, message: str, data: str | None = None) -> JsonObject:
    error: JsonObject = {"code": code, "message": message}
    return {"jsonrpc": "2.0", "id": identity, "error": error if data is None else {**error, "data": data}}
