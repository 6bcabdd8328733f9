"""The composition root: opens adapters, starts loops, stops in reverse. Only this module knows two adapters at once."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import structlog

from pandacea import __version__, keys
from pandacea.api import routes
from pandacea.api.auth import Authenticator
from pandacea.api.edge import EdgeLimits
from pandacea.api.node import NODE, Node, Readiness
from pandacea.api.nonces import GroupCommitNonces, MemoryNonces
from pandacea.api.server import Listener, Server, Tls, create_app
from pandacea.api.throttle import Rate, Streams
from pandacea.catalogue.codecheck import ChildCodeChecker
from pandacea.catalogue.products_file import read as read_products
from pandacea.catalogue.registry import Catalogue
from pandacea.config import Config, docker_host
from pandacea.domain.ids import Address
from pandacea.errors import Broken, Unavailable
from pandacea.flows.announce import announce
from pandacea.flows.execute import ExecutePorts, recover, run_next
from pandacea.flows.housekeeping import sweep
from pandacea.flows.privacy import LeasedPrivacy
from pandacea.flows.seal import Sealer
from pandacea.flows.settle import settle
from pandacea.flows.submit import Queue, SubmitPorts
from pandacea.flows.watch import Watch
from pandacea.mqtt import MqttBroker, MqttSettings
from pandacea.store.books import SqlBooks
from pandacea.store.migrate import upgrade
from pandacea.store.products import SqlProductBook
from pandacea.store.session import Database
from pandacea.telemetry.notify import ServiceManager
from pandacea_sdk.protocol.signing import SigningPolicy

log = structlog.get_logger(__name__)

IDLE_SECONDS: Final = 1.0
"""How long a loop with nothing to do sleeps when nobody wakes it."""
HOUSEKEEPING_SECONDS: Final = 300.0


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Unix seconds."""
        return time.time()


async def serve(config: Config, manager: ServiceManager) -> None:
    """Run the node until SIGINT or SIGTERM.

    Raises:
        Broken: something on this machine must be mended first; nothing was served.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with AsyncExitStack() as stack:
        await _serve(config, manager, stack, stop)
    log.info("node.stopped")
