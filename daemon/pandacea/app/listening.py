"""The node's HTTP side: who may ask, what the routes serve from, and the server they are served by."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from pandacea import __version__, keys
from pandacea.api.auth import AUTHENTICATOR, Authenticator
from pandacea.api.node import NODE, Node, Readiness
from pandacea.api.nonces import GroupCommitNonces, MemoryNonces
from pandacea.api.routes import add_routes
from pandacea.api.routes.about import describe
from pandacea.api.server import Server, create_app
from pandacea.api.throttle import Rate, Streams
from pandacea.app import parts
from pandacea.app.core import Core
from pandacea.app.loops import task
from pandacea.chain.wallets import ContractWallets
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.flows.approve import ApprovePorts
from pandacea.flows.submit import SubmitPorts
from pandacea.flows.uploads import Uploads
from pandacea_sdk.protocol.signing import SKEW, SigningPolicy


async def listen(
    config: Config, core: Core, submit: SubmitPorts, uploads: Uploads, stack: AsyncExitStack, tasks: list[asyncio.Task[None]]
) -> Server:
    listener = parts.listener(config)
    app = create_app(listener.limits)

    app[AUTHENTICATOR] = _authenticator(config, core, stack, tasks)
    app[NODE] = Node(
        earner=Address(config.earner.address),
        books=core.books,
        book=core.follower.book,
        catalogue=core.catalogue,
        submit=submit,
        watch=core.watch,
        clock=core.clock,
        streams=Streams(),
        uploads=uploads,
        approve=ApprovePorts(core.books, core.follower.book, core.catalogue, submit.checker, core.clock),
        well_known=_well_known(config, core),
        readiness=lambda: _readiness(core, config.store.state_dir),
    )
    add_routes(app)
    describe(app, __version__)
    server = Server(app, listener)
    await server.start()
    stack.push_async_callback(server.stop)
    if listener.tls is not None:
        tasks.append(task(server.reload_tls(), "tls", stack))
    return server


def _authenticator(config: Config, core: Core, stack: AsyncExitStack, tasks: list[asyncio.Task[None]]) -> Authenticator:
    nonces = GroupCommitNonces(core.books.spend_nonces)
    tasks.append(task(nonces.run(), "nonces", stack))
    wallets = ContractWallets(core.follower.endpoints, core.follower.book.standing)
    stack.push_async_callback(wallets.close)
    return Authenticator(
        SigningPolicy(core.chain_id, frozenset(authority.lower() for authority in config.authorities)),
        core.clock,
        parts.Spenders(core.follower.book),
        nonces,
        stranger_nonces=MemoryNonces(core.clock.now, SKEW),
        stranger_rate=Rate(1, 5, time.monotonic),
        wallets=wallets,
        wallet_rate=Rate(2, 10, time.monotonic),
    )


def _well_known(config: Config, core: Core) -> dict[str, Any]:
    environment: dict[str, Any] = {
        "kind": core.identity.kind,
        "environment": core.identity.environment,
        "guest": core.identity.guest,
    }
    if core.identity.packages:
        environment["packages"] = list(core.identity.packages)
    document: dict[str, Any] = {
        "chain_id": core.chain_id,
        "contract": core.contract,
        "earner": config.earner.address,
        "authorities": list(config.authorities),
        "version": __version__,
        "environment": environment,
        "signer": core.signer.address.lower(),
    }
    return keys.signed_document(core.signer, document)


def _readiness(core: Core, state_dir: Path) -> Readiness:
    standing = core.follower.book.standing()
    free = shutil.disk_usage(state_dir).free
    trouble = core.database.trouble
    parts_ready: dict[str, Any] = {
        "database": trouble or "ok",
        "chain": standing.distrust or "ok",
        "head": standing.head_number,
        "confident": standing.confident,
        "sandbox": core.identity.kind,
        "disk_free_bytes": free,
    }
    return Readiness(standing.trusted and trouble is None, parts_ready)
