"""A WebSocket subscription to new heads that wakes the follower: messages are not read, and what it misses polling finds.

web3's subscriptions are not used: a burst deadlocks them, a reconnect loses what happened meanwhile, and silence goes unnoticed.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidURI, WebSocketException

from pandacea.chain.rpc_faults import describe_exception
from pandacea.tasks import log_task_failure
from pandacea_sdk.protocol.redaction import redact_url

log = structlog.get_logger(__name__)

SUBSCRIBE_REQUEST: Final = '{"jsonrpc":"2.0","id":1,"method":"eth_subscribe","params":["newHeads"]}'
MAX_RECONNECT_SECONDS: Final = 60.0
"""The longest pause between two connections."""
SUBSCRIBE_GRACE_SECONDS: Final = 5.0
"""After connecting, for which silence is not counted."""
MAX_MESSAGE_BYTES: Final = 256 * 1024
"""Of one message; a header has 2 KB."""


class NewHeadsSubscription:
    """Keeps one subscription to new heads open."""

    def __init__(self, url: str, wake: Callable[[], None], *, rng: random.Random | None = None) -> None:
        """`wake`: called for every message."""
        self.name = redact_url(url)
        self._url = url
        self._wake = wake
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._drop = asyncio.Event()
        self.last_message_at: float | None = None
        """`time.monotonic()` of the connection's last notification; None before the first."""
        self._connected_at = 0.0
        self.connection_count = 0
        self.silence_count = 0

    @property
    def is_live(self) -> bool:
        """Whether it notifies of blocks, so that polling may be slower."""
        return self.last_message_at is not None

    def report_missed_block(self) -> None:
        """Reconnect after polling found a block that was not notified: the socket is open but silent."""
        if self.last_message_at is None and time.monotonic() - self._connected_at < SUBSCRIBE_GRACE_SECONDS:
            return  # it has only just subscribed
        self.silence_count += 1
        self.last_message_at = None
        log.warning("chain.websocket_silent", endpoint=self.name)
        self._drop.set()

    async def run(self) -> None:
        """Connect, listen and reconnect until cancelled. After an error it pauses; meanwhile the follower polls."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._listen()
            except (WebSocketException, InvalidURI, OSError, TimeoutError, EOFError) as error:
                log.info("chain.websocket_lost", endpoint=self.name, reason=describe_exception(error))
            self.last_message_at = None
            self._wake()  # polling finds what happened without a connection
            failures = 0 if time.monotonic() - began > MAX_RECONNECT_SECONDS else failures + 1
            await asyncio.sleep(min(MAX_RECONNECT_SECONDS, 0.2 * 2 ** min(failures, 9)) * self._rng.uniform(0.5, 1.0))

    async def _listen(self) -> None:
        self._drop.clear()
        async with connect(
            self._url, open_timeout=10, ping_interval=20, ping_timeout=20, close_timeout=1, max_size=MAX_MESSAGE_BYTES, max_queue=16
        ) as socket:
            self.connection_count += 1
            self._connected_at = time.monotonic()
            await socket.send(SUBSCRIBE_REQUEST)
            closing = asyncio.create_task(self._close_when_dropped(socket), name="chain-new-heads-closing")
            closing.add_done_callback(log_task_failure)
            try:
                async for message in socket:
                    if '"eth_subscription"' in str(message):
                        self.last_message_at = time.monotonic()
                    self._wake()  # at the acknowledgement too: a block may have come before the subscription
            finally:
                closing.cancel()

    async def _close_when_dropped(self, socket: ClientConnection) -> None:
        await self._drop.wait()
        await socket.close()
