"""MQTT out, on aiomqtt: one connection, QoS 1, a retained last will that says when the node is gone."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final

import aiomqtt

from pandacea.domain.printable import printable
from pandacea.errors import Unavailable

QOS: Final = 1
TIMEOUT: Final = 10.0
"""Seconds for the broker to answer."""
ONLINE: Final = {"state": "online"}
OFFLINE: Final = {"state": "offline"}


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Where the broker is. `topic`: first levels of every topic."""

    host: str
    port: int
    username: str | None
    password: str | None
    tls: bool
    topic: str
    node: str
    """The node's name below `topic`: its Earner's address."""


class MqttBroker:
    """`flows.ports.Broker`. Connects on first use, and again after a failure."""

    def __init__(self, settings: MqttSettings) -> None:
        """Nothing is opened yet."""
        self._settings = settings
        self._stack = AsyncExitStack()
        self._client: aiomqtt.Client | None = None
        self._one = asyncio.Lock()
        """One publication at a time: two at once would each connect."""

    async def publish(self, topic: str, payload: dict[str, Any], *, retain: bool = False) -> None:
        """Hand one message over.

        Raises:
            Unavailable: the broker is not there or did not acknowledge.
        """
        text = json.dumps(clean(payload), separators=(",", ":"), sort_keys=True)
        async with self._one:
            try:
                client = await self._connected()
                await client.publish(self._topic(topic), text, qos=QOS, retain=retain, timeout=TIMEOUT)
            except (TimeoutError, aiomqtt.MqttError, OSError) as problem:
                await self._drop()
                raise Unavailable(
                    f"The MQTT broker at {self._settings.host}:{self._settings.port} does not take messages: {problem}."
                ) from problem

    async def present(self) -> None:
        """Say that the node is online: at start, and again and again, for a broker that lost us has told our last will.

        Raises:
            Unavailable: as `publish`.
        """
        await self.publish("status", ONLINE, retain=True)

    async def close(self) -> None:
        """Say that the node is offline, and disconnect."""
        if self._client is not None:
            try:
                await self.publish("status", OFFLINE, retain=True)
            except Unavailable:
                return  # the broker is gone; its last will speaks for us
            await self._drop()

    def _topic(self, topic: str) -> str:
        return f"{self._settings.topic}/{self._settings.node}/{topic}"

    async def _connected(self) -> aiomqtt.Client:
        if self._client is None:
            settings = self._settings
            will = aiomqtt.Will(self._topic("status"), json.dumps(OFFLINE), qos=QOS, retain=True)
            client = aiomqtt.Client(
                settings.host,
                settings.port,
                username=settings.username,
                password=settings.password,
                will=will,
                timeout=TIMEOUT,
                tls_context=ssl.create_default_context() if settings.tls else None,
            )
            await self._stack.enter_async_context(client)
            self._client = client
            await client.publish(self._topic("status"), json.dumps(ONLINE), qos=QOS, retain=True, timeout=TIMEOUT)
        return self._client

    async def _drop(self) -> None:
        self._client = None
        with suppress(aiomqtt.MqttError):  # already disconnected: that is what was wanted
            await self._stack.aclose()
        self._stack = AsyncExitStack()


def clean(value: Any) -> Any:
    """Every string made printable: subscribers show them on dashboards and terminals."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(name)): clean(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return value
