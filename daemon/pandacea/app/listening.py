"""The node's HTTP side: who may ask, what the routes serve from, and the server they are served by."""

from __future__ import annotations

import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

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
from pandacea.app.loops import start_task
from pandacea.app.workers import Workers
from pandacea.chain.wallets import ContractWallets
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.flows.approve import ApprovePorts
from pandacea.flows.background import Background
from pandacea.flows.submit import SubmitPorts
from pandacea.flows.uploads import Uploads
from pandacea_sdk.protocol.signing import SKEW, SigningPolicy

SPENDER_RATE: Final = (50.0, 200.0)
"""Signed requests of one Spender: a second, and at once."""


async def listen(
    config: Config,
    core: Core,
    submit: SubmitPorts,
    uploads: Uploads,
    workers: Workers,
    background: Background,
    stack: AsyncExitStack,
) -> Server:
    listener = parts.listener(config.server)
    app = create_app(listener.limits)

    app[AUTHENTICATOR] = _authenticator(config, core, background, stack)
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
        readiness=lambda: _readiness(core, submit, workers, background, config.store.state_dir),
    )
    add_routes(app)
    describe(app, __version__)
    server = Server(app, listener)
    await server.start()
    stack.push_async_callback(server.stop)
    if listener.tls is not None:
        start_task(background, server.reload_tls(), "tls", stack)
    return server


def _authenticator(config: Config, core: Core, background: Background, stack: AsyncExitStack) -> Authenticator:
    nonces = GroupCommitNonces(core.books.spend_nonces)
    start_task(background, nonces.run(), "nonces", stack)
    wallets = ContractWallets(
        core.follower.endpoints,
        core.follower.book.standing,
        lambda: core.follower.spender_keys,
        frozenset(map(Address, config.blockchain.contract_wallets)),
    )
    stack.push_async_callback(wallets.close)
    return Authenticator(
        SigningPolicy(core.chain_id, frozenset(authority.lower() for authority in config.authorities)),
        core.clock,
        parts.Spenders(core.follower.book),
        nonces,
        stranger_nonces=MemoryNonces(core.clock.now, SKEW),
        stranger_rate=Rate(5, 20, time.monotonic),
        peer_rate=Rate(1, 5, time.monotonic),
        spender_rate=Rate(*SPENDER_RATE, time.monotonic),
        wallets=wallets,
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


def _readiness(core: Core, submit: SubmitPorts, workers: Workers, background: Background, state_dir: Path) -> Readiness:
    """Ready: a computation that is sent now would run."""
    standing = core.follower.book.standing()
    troubles = {
        "database": core.database.trouble,
        "chain": standing.distrust,
        "workers": workers.trouble(submit.limits.time_seconds),
        "boxes": core.sandbox.pool.trouble,
        "results": submit.shelf.disk_shortage(submit.limits),
        "node": "it is stopping" if workers.stopping else background.ended and f"its task {background.ended} has ended",
    }
    told: dict[str, Any] = {name: trouble or "ok" for name, trouble in troubles.items()}
    told |= {
        "head": standing.head_number,
        "confident": standing.confident,
        "sandbox": core.identity.kind,
        "disk_free_bytes": shutil.disk_usage(state_dir).free,
    }
    return Readiness(standing.trusted and not any(troubles.values()), told)
