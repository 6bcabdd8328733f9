"""Client of the control socket: sends a verb to the running node, or carries it out in this process when none runs."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import AsyncExitStack
from pathlib import Path

from pandacea.app import factories
from pandacea.app.control.accounts import name_operator
from pandacea.app.control.leases import LeaseControl
from pandacea.app.control.products import ProductControl
from pandacea.app.control.server import MAX_LINE_BYTES, SOCKET_NAME, Arguments, ControlServer
from pandacea.clock import SystemClock
from pandacea.config import Config
from pandacea.errors import Broken, Refused
from pandacea.flows.live_output import JobNotifier
from pandacea.store.products import SqlProductStore
from pandacea_sdk.protocol.json_types import JsonObject


async def call_node(config: Config, verb: str, arguments: Arguments) -> JsonObject:
    """Send a verb to the running node; when none runs, take the node's lock and carry it out here.

    Raises:
        Refused: it cannot be done as asked.
        Broken: a node runs but does not answer.
    """
    answer = await call_running_node(config, verb, arguments)
    if answer is not None:
        return answer
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(factories.lock_state_dir(config.store.state_dir))
        engine = await stack.enter_async_context(factories.open_database(config, exclusive=True))
        database = factories.open_books(config, engine)
        clock, products = SystemClock(), SqlProductStore(engine)
        server = ControlServer(
            factories.make_release_ports(config, database, JobNotifier()),
            clock,
            ProductControl(products, config.privacy.data_dir),
            LeaseControl(lambda: factories.open_chain_store(config, engine), products, clock),
        )
        return await server.handle(verb, {**arguments, "by": name_operator(os.getuid())})


async def call_running_node(config: Config, verb: str, arguments: Arguments) -> JsonObject | None:
    """Send a verb to the running node; None: no node runs.

    Raises:
        Refused: it cannot be done as asked.
        Broken: a node runs but does not answer.
    """
    try:
        return await _send(config.store.state_dir, verb, arguments)
    except (FileNotFoundError, ConnectionRefusedError):
        return None


async def _send(state_dir: Path, verb: str, arguments: Arguments) -> JsonObject:
    folder = os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{SOCKET_NAME}", limit=MAX_LINE_BYTES)
    finally:
        os.close(folder)
    try:
        writer.write(json.dumps({"verb": verb, "asked": dict(arguments)}).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
    finally:
        writer.close()
    if not line:
        raise Broken("The node closed the connection without an answer; its log says why.")
    reply = json.loads(line)
    if "problem" in reply:
        raise Refused(reply["problem"]["detail"])
    answer: JsonObject = reply["answer"]
    return answer
