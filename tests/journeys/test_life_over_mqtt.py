"""What a home's automation hears of a node: a real node, a real broker with a subscriber that was there before, and a webhook."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import aiomqtt

from tests.journeys.conftest import INPUTS, System, system
from tests.messages import check_message
from tests.mqtt.broker import Mosquitto
from tests.prerequisites import free_port
from tests.webhooks.receiver import Receiver, receiving

Heard = list[tuple[str, dict[str, Any]]]


async def listen(port: int, heard: Heard, listening: asyncio.Event) -> None:
    """Keep every message; topics without the node's prefix."""
    async with aiomqtt.Client("127.0.0.1", port) as client:
        await client.subscribe("pandacea/#", qos=1)
        listening.set()
        async for message in client.messages:
            assert isinstance(message.payload, bytes)
            heard.append((str(message.topic).split("/", 2)[2], json.loads(message.payload)))


async def hears(heard: Heard, topic: str, after: int = 0, **wanted: str) -> None:
    """Wait for a message on a topic with these values, after the first so many messages."""
    async with asyncio.timeout(30):
        while not any(on == topic and wanted.items() <= payload.items() for on, payload in heard[after:]):
            await asyncio.sleep(0.05)


async def lives(built: System, mosquitto: Mosquitto, receiver: Receiver) -> Heard:
    """One life of a node and the beginning of the next, as a subscriber hears it."""
    heard: Heard = []
    listening = asyncio.Event()
    await mosquitto.start()
    subscriber = asyncio.create_task(listen(mosquitto.port, heard, listening))
    try:
        await listening.wait()
        await asyncio.to_thread(built.start)
        await hears(heard, "status", state="online")
        lease_id = await asyncio.to_thread(built.lease)
        await hears(heard, f"leases/{lease_id}/LeaseApproved")
        script = built.folder / "script.py"
        script.write_text("print(len(features))")
        answer = await asyncio.to_thread(built.client().execute_computation, lease_id, script, INPUTS)
        await hears(heard, f"computations/{answer['computation_id']}/completed")
        built.stop(kill=True)
        await hears(heard, "status", state="offline")
        dead = len(heard)
        await asyncio.to_thread(built.start)
        await hears(heard, "status", dead, state="online")
        wanted = {payload["id"] for topic, payload in heard if topic != "status"}
        async with asyncio.timeout(30):
            while not wanted <= {headers["webhook-id"] for headers, _ in receiver.requests}:
                await asyncio.sleep(0.05)
    finally:
        subscriber.cancel()
        await asyncio.gather(subscriber, return_exceptions=True)
        await mosquitto.stop()
    return heard


def test_a_node_tells_its_life_and_its_sudden_death(tmp_path: Path) -> None:
    """Online, each lease event and each state of a computation in order, the broker's word at its death; one id for what comes twice."""
    mosquitto = Mosquitto(tmp_path, free_port())
    secret, port = tmp_path / "webhook-secret", free_port()
    secret.touch(mode=0o600)
    secret.write_text(f"whsec_{base64.b64encode(b'only for tests, 32 bytes of them').decode()}\n")
    webhooks = {"url": f"http://127.0.0.1:{port}/hook", "secret_file": str(secret), "allow_private": True}

    async def live(built: System) -> Heard:
        async with receiving(port=port) as receiver:
            return await lives(built, mosquitto, receiver)

    mqtt = {"host": "127.0.0.1", "port": mosquitto.port}
    with system(tmp_path / "node", "bubblewrap", mqtt=mqtt, webhooks=webhooks) as built:
        heard = asyncio.run(live(built))
    for _, payload in heard:
        check_message(payload)
    # A node killed before it noted the broker's word sends again, under the same id.
    events = list({payload["id"]: payload for topic, payload in heard if topic != "status"}.values())
    assert [
        payload["type"] for payload in events if payload["type"].startswith("leases.") and payload["type"] != "leases.requested"
    ] == [
        "leases.LeaseCreated",
        "leases.LeaseTerms",
        "leases.LeaseApproved",
    ]
    assert [payload["data"]["state"] for payload in events if payload["type"].startswith("computations.")] == [
        "pending",
        "running",
        "completed",
    ]
    assert "200" not in json.dumps([payload["data"] for payload in events if "state" in payload["data"]]), "never content"
