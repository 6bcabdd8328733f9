"""The node's HTTP side: who may ask, what the routes serve from, and the server they are served by."""

from __future__ import annotations

import shutil
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from pandacea import __version__, keys
from pandacea.api.auth import AUTHENTICATOR, Authenticator
from pandacea.api.node import NODE, NodeContext, Readiness
from pandacea.api.nonces import GroupCommitNonces, MemoryNonces
from pandacea.api.rate_limit import RateLimiter, StreamLimiter
from pandacea.api.routes import add_routes
from pandacea.api.routes.about import publish_openapi
from pandacea.api.server import HttpServer, create_app
from pandacea.app import factories
from pandacea.app.loops import supervise_task
from pandacea.app.startup import Adapters
from pandacea.app.workers import Workers
from pandacea.chain.spenders.erc1271 import Erc1271Verifier
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.flows.accept_job import SubmitPorts
from pandacea.flows.approve_code import CodeApprovalPorts
from pandacea.flows.uploads import UploadStore
from pandacea.tasks import TaskSupervisor
from pandacea_sdk.protocol.signing import CLOCK_SKEW_SECONDS, SigningPolicy

SPENDER_RATE: Final = (50.0, 200.0)
"""Signed requests of one Spender: a second, and at once."""


async def serve_http(
    config: Config,
    core: Adapters,
    submit: SubmitPorts,
    uploads: UploadStore,
    workers: Workers,
    background: TaskSupervisor,
    stack: AsyncExitStack,
) -> HttpServer:
    listener = factories.listener_of(config.server)
    app = create_app(listener.limits)

    app[AUTHENTICATOR] = _authenticator(config, core, background, stack)
    app[NODE] = NodeContext(
        earner=Address(config.earner.address),
        database=core.database,
        leases=core.follower.lease_cache,
        catalogue=core.catalogue,
        submit=submit,
        notifier=core.notifier,
        clock=core.clock,
        streams=StreamLimiter(),
        uploads=uploads,
        approve=CodeApprovalPorts(core.database, core.follower.lease_cache, core.catalogue, submit.checker, core.clock),
        well_known=_well_known(config, core),
        readiness=lambda: _readiness(core, submit, workers, background, config.store.state_dir),
    )
    add_routes(app)
    publish_openapi(app, __version__)
    server = HttpServer(app, listener)
    await server.start()
    stack.push_async_callback(server.stop)
    if listener.tls is not None:
        supervise_task(background, server.reload_tls_forever(), "tls", stack)
    return server


def _authenticator(config: Config, core: Adapters, background: TaskSupervisor, stack: AsyncExitStack) -> Authenticator:
    nonces = GroupCommitNonces(core.database.spend_nonces)
    supervise_task(background, nonces.run(), "nonces", stack)
    wallets = Erc1271Verifier(
        core.follower.endpoints,
        core.follower.lease_cache.chain_status,
        lambda: core.follower.spender_accounts,
        frozenset(map(Address, config.blockchain.contract_wallets)),
    )
    stack.push_async_callback(wallets.close)
    return Authenticator(
        SigningPolicy(core.chain_id, frozenset(authority.lower() for authority in config.authorities)),
        core.clock,
        factories.LeaseSpenders(core.follower.lease_cache),
        nonces,
        stranger_nonces=MemoryNonces(core.clock.now, CLOCK_SKEW_SECONDS),
        stranger_rate=RateLimiter(5, 20, time.monotonic),
        peer_rate=RateLimiter(1, 5, time.monotonic),
        spender_rate=RateLimiter(*SPENDER_RATE, time.monotonic),
        wallets=wallets,
    )


def _well_known(config: Config, core: Adapters) -> dict[str, Any]:
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
    return keys.sign_document(core.signer, document)


def _readiness(core: Adapters, submit: SubmitPorts, workers: Workers, background: TaskSupervisor, state_dir: Path) -> Readiness:
    """Ready: a computation that is sent now would run."""
    standing = core.follower.lease_cache.chain_status()
    troubles = {
        "database": core.engine.failure_reason,
        "chain": standing.not_ready_reason,
        "workers": workers.stuck_reason(submit.limits.time_seconds),
        "boxes": core.sandbox.pool.unavailable_reason,
        "results": submit.results.find_disk_shortage(submit.limits),
        "node": "it is stopping" if workers.stopping else background.first_ended and f"its task {background.first_ended} has ended",
    }
    told: dict[str, Any] = {name: trouble or "ok" for name, trouble in troubles.items()}
    told |= {
        "head": standing.head_number,
        "confident": standing.confident_block,
        "sandbox": core.identity.kind,
        "disk_free_bytes": shutil.disk_usage(state_dir).free,
    }
    return Readiness(standing.is_ready and not any(troubles.values()), told)
