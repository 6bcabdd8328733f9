"""Follows the engine's events about this node's containers: killed for memory, ended, and the connection to the engine lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Final

import aiodocker
import aiohttp

from pandacea.sandbox.docker.config import NODE_LABEL, SANDBOX_LABEL
from pandacea.tasks import RestartedTask
from pandacea_sdk.protocol.json_types import JsonObject

_RETRY_SECONDS: Final = 0.5


class EngineEvents:
    """Follows GET /events for one node's label; reconnects until stopped."""

    def __init__(self, engine: aiodocker.Docker, node_label: str, on_oom: Callable[[str], None]) -> None:
        self._engine, self._node_label, self._on_oom = engine, node_label, on_oom
        self._following = RestartedTask("docker-events", self._follow)
        self._ended: dict[str, asyncio.Event] = {}
        self._generation = 0
        self._created_in: dict[str, int] = {}
        self._gap = asyncio.Event()

    def start(self) -> None:
        """Start following in the background."""
        self._following.start()

    async def stop(self) -> None:
        """Stop following and wait until the task has ended."""
        await self._following.stop()

    async def wait_ended(self, name: str) -> None:
        """Return when the container of the instance `name` has ended."""
        self._created_in.setdefault(name, self._generation)
        await self._ended.setdefault(name, asyncio.Event()).wait()

    async def connection_lost_since(self, name: str, grace: float) -> bool:
        """Whether the connection to the engine broke since this instance was created, or breaks within `grace` seconds.

        An engine that shuts down ends its containers first and its connections a moment later.
        """
        if self._created_in.get(name, self._generation) == self._generation:
            try:
                async with asyncio.timeout(grace):
                    await self._gap.wait()
            except TimeoutError:
                return False
        return True

    def forget(self, name: str) -> None:
        """Drop what is kept about an instance."""
        self._ended.pop(name, None)
        self._created_in.pop(name, None)

    async def _follow(self) -> None:
        filters = json.dumps({"type": ["container"], "event": ["oom", "die"], "label": [f"{NODE_LABEL}={self._node_label}"]})
        while True:
            with contextlib.suppress(aiodocker.DockerError, aiohttp.ClientError, OSError, ValueError):
                timeout = aiohttp.ClientTimeout(total=None)
                # aiodocker's own event stream does not show when the connection was lost.
                async with self._engine._query("events", params={"filters": filters}, timeout=timeout) as response:  # noqa: SLF001 - as above
                    async for line in response.content:
                        self._handle_event(json.loads(line))
            self._generation += 1  # a gap: what happened in it was not seen
            self._gap.set()
            self._gap = asyncio.Event()
            for event in self._ended.values():
                event.set()
            await asyncio.sleep(_RETRY_SECONDS)

    def _handle_event(self, event: JsonObject) -> None:
        name = event.get("Actor", {}).get("Attributes", {}).get(SANDBOX_LABEL)
        if not isinstance(name, str):
            return
        if event.get("Action") == "oom":
            self._on_oom(name)
        elif event.get("Action") == "die" and name in self._ended:
            self._ended[name].set()
