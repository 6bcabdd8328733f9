"""Publish events over MQTT (aiomqtt): one connection, QoS 1, and a retained last will that tells subscribers when the node is gone."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiomqtt

from pandacea.domain.printable import printable
from pandacea.errors import Unavailable
from pandacea_sdk.protocol.json_types import JsonObject

QOS: Final = 1
TIMEOUT_SECONDS: Final = 10.0
"""Seconds for the broker to answer."""
ONLINE: Final = {"state": "online"}
OFFLINE: Final = {"state": "offline"}


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Where the broker is, and under which topic the node publishes."""

    host: str
    port: int
    username: str | None
    password: str | None
    tls: bool
    topic_prefix: str
    """First levels of every topic."""
    node_name: str
    """The level below `topic_prefix`: the Earner's address."""
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None

    def make_tls_context(self) -> ssl.SSLContext | None:
        """Read authorities and certificate anew, since both are renewed while the node runs; None: without TLS.

        Raises:
            OSError: a file cannot be read, is not PEM, or key and certificate do not fit.
        """
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.tls_ca)
        if self.tls_certificate is not None:
            # A key with a passphrase would be asked for at the terminal.
            context.load_cert_chain(self.tls_certificate, self.tls_key, password=lambda: "")
        return context


class MqttPublisher:
    """`flows.ports.Broker`. Connects on first use, and again after a failure."""

    def __init__(self, settings: MqttSettings) -> None:
        """Take the settings; the connection is opened on first use."""
        self._settings = settings
        self._stack = AsyncExitStack()
        self._client: aiomqtt.Client | None = None
        self._lock = asyncio.Lock()
        """Held while publishing: two publications at once would each connect."""

    async def publish(self, topic: str, payload: JsonObject, *, retain: bool = False) -> None:
        """Publish one message.

        Raises:
            Unavailable: the broker is not there or did not acknowledge.
        """
        text = json.dumps(make_printable(payload), separators=(",", ":"), sort_keys=True)
        async with self._lock:
            try:
                client = await self._connect()
                await client.publish(self._topic(topic), text, qos=QOS, retain=retain, timeout=TIMEOUT_SECONDS)
            except (TimeoutError, aiomqtt.MqttError, OSError) as problem:
                await self._disconnect()
                raise Unavailable(
                    f"The MQTT broker at {self._settings.host}:{self._settings.port} does not take messages: {problem}."
                ) from problem

    async def announce_online(self) -> None:
        """Publish that the node is online. Call it at start and regularly: a broker that lost the connection has published the last will.

        Raises:
            Unavailable: as `publish`.
        """
        await self.publish("status", ONLINE, retain=True)

    async def close(self) -> None:
        """Publish that the node is offline, and disconnect."""
        if self._client is not None:
            try:
                await self.publish("status", OFFLINE, retain=True)
            except Unavailable:
                return  # the broker is gone; it publishes the last will itself
            await self._disconnect()

    def _topic(self, topic: str) -> str:
        return f"{self._settings.topic_prefix}/{self._settings.node_name}/{topic}"

    async def _connect(self) -> aiomqtt.Client:
        if self._client is None:
            settings = self._settings
            will = aiomqtt.Will(self._topic("status"), json.dumps(OFFLINE), qos=QOS, retain=True)
            client = aiomqtt.Client(
                settings.host,
                settings.port,
                username=settings.username,
                password=settings.password,
                will=will,
                timeout=TIMEOUT_SECONDS,
                tls_context=settings.make_tls_context(),
            )
            await self._stack.enter_async_context(client)
            self._client = client
            await client.publish(self._topic("status"), json.dumps(ONLINE), qos=QOS, retain=True, timeout=TIMEOUT_SECONDS)
        return self._client

    async def _disconnect(self) -> None:
        self._client = None
        with suppress(aiomqtt.MqttError):  # already disconnected: that is what was wanted
            await self._stack.aclose()
        self._stack = AsyncExitStack()


def make_printable(value: Any) -> Any:
    """Make every string in a value printable, because subscribers show them on dashboards and terminals."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(str(name)): make_printable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [make_printable(item) for item in value]
    return value
