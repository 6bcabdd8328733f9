"""The node's real routes over a real server and database, with leases and sandbox faked; on a thread, for synchronous clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp import web

from pandacea.api.auth import AUTHENTICATOR, Authenticator
from pandacea.api.connection_guard import HttpLimits
from pandacea.api.node import NODE, NodeContext, Readiness
from pandacea.api.nonces import GroupCommitNonces, MemoryNonces
from pandacea.api.openapi.document import build_document
from pandacea.api.rate_limit import RateLimiter, RateLimits, StreamLimiter
from pandacea.api.routes import add_routes
from pandacea.api.routes.about import publish_openapi
from pandacea.api.server import HttpServer, Listener, create_app
from pandacea.app.background import supervise_task
from pandacea.domain.code_approval import CodeState
from pandacea.domain.ids import Address, Timestamp
from pandacea.flows.approve_code import decide_code
from pandacea.flows.execute import run_next_job
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from pandacea.store.unit_of_work import SqlDatabase
from pandacea.tasks import Loop, TaskSupervisor
from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.signing import SigningPolicy
from tests.fakes import CHAIN_ID, CONTRACT, EARNER, LEASE_ID, cached_lease
from tests.flows.conftest import World, make_world

AUTHORITY = "node.example"
SPENDER = KeySigner("11" * 32)


@dataclass
class ServedNode:
    """A serving node: its port, its description, and the world behind it."""

    port: int
    described: dict[str, Any]
    world: World

    loop: asyncio.AbstractEventLoop | None = None
    """The loop on which it serves, when that is another thread's."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def decide(self, code_id: str, state: CodeState, reason: str = "") -> None:
        """Decide on a script as the Earner; called from another thread than the node's."""
        assert self.loop is not None
        work = decide_code(code_id, state, reason, self.world.submit.database, self.world.clock)
        asyncio.run_coroutine_threadsafe(work, self.loop).result(30)


async def assemble(
    folder: Path,
    stack: AsyncExitStack,
    limits: HttpLimits | None = None,
    prepare: Callable[[World, web.Application], None] | None = None,
) -> ServedNode:
    """Put a node together as `app` does and serve it; `prepare` may change the world and add routes before that."""
    database = await DatabaseEngine.open(f"sqlite+aiosqlite:///{folder / 'node.db'}")
    stack.push_async_callback(database.close)
    await upgrade(database)
    world = await make_world(folder, database)
    world.lease_cache.leases[LEASE_ID] = cached_lease(
        spender=Address(SPENDER.address), max_computations=1_000_000, expires_at=Timestamp(2_000_000_000)
    )
    world.clock.now = time.time  # type: ignore[method-assign]  # signatures are made by clients with clocks of their own
    world.catalogue.product.document.update(
        {
            "product_id": "p",
            "name": "p",
            "data_type": "table",
            "keywords": [],
            "price_wei": "0",
            "description": "",
            "rules": world.catalogue.product.rules.as_json(),
            "assets": [{"asset_id": "a", "description": "", "schema": [], "rows_rounded": 10, "commitment": "1" * 64}],
        }
    )
    worker = Loop("worker", lambda: run_next_job(world.execute))
    submit = replace(
        world.submit, wake_workers=worker.wake, queue=replace(world.submit.queue, max_per_spender=10**6, max_total=10**6)
    )
    # One Spender is all the load here: what is measured and tested with it is not how little one Spender may do.
    limits = limits or HttpLimits(connections_per_peer=1024, requests_per_spender=1024)
    app = create_app(limits)

    nonces = GroupCommitNonces(SqlDatabase(database).spend_nonces)
    port = _free_port()
    app[AUTHENTICATOR] = Authenticator(
        SigningPolicy(CHAIN_ID, frozenset({AUTHORITY, f"127.0.0.1:{port}"})),
        world.clock,
        world.lease_cache,
        nonces,
        stranger_nonces=MemoryNonces(time.time, 30),
        stranger_rate=RateLimiter(1000, 1000, time.monotonic),
    )
    add_routes(app)
    publish_openapi(app, "test")
    described = build_document(app, "test")
    about: dict[str, Any] = {"chain_id": CHAIN_ID, "contract": CONTRACT, "earner": EARNER, "authorities": [AUTHORITY]}
    app[NODE] = NodeContext(
        earner=EARNER,
        database=submit.database,
        leases=world.lease_cache,
        catalogue=world.catalogue,
        submit=submit,
        chain_id=submit.chain_id,
        contract=submit.contract,
        privacy=submit.privacy,
        limits=submit.limits,
        results=submit.results,
        max_wait_seconds=submit.queue.max_wait_seconds,
        notifier=world.execute.notifier,
        clock=world.clock,
        streams=StreamLimiter(each=1024),
        uploads=world.uploads,
        approve=world.approve,
        well_known=about | {"version": "test", "environment": {}},
        readiness=lambda: Readiness(ready=True, parts={}),
        rates=RateLimits(*(RateLimiter(10**6, 10**6, time.monotonic) for _ in range(3))),
    )
    if prepare is not None:
        prepare(world, app)
    server = HttpServer(app, Listener(port=port, grace_seconds=1, limits=limits))
    await server.start()
    stack.push_async_callback(server.stop)
    background = TaskSupervisor()
    for name, work in (("nonces", nonces.run()), ("worker", worker.run())):
        supervise_task(background, work, name, stack)
    return ServedNode(server.port, described, world)


def _free_port() -> int:
    """One that nobody listens on: a client signs for the port it calls, so the node must know it before it starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(folder: Path) -> Iterator[ServedNode]:
    """Serve until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = AsyncExitStack()
    try:
        made = asyncio.run_coroutine_threadsafe(assemble(folder, stack), loop).result(30)
        made.loop = loop
        yield made
    finally:
        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
