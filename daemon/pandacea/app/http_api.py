"""Builds and starts the HTTP API: authentication, what the routes serve from, readiness, and the server."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from typing import Final

from pandacea import __version__, keys
from pandacea.api.auth import AUTHENTICATOR, Authenticator, LeaseSpenders
from pandacea.api.middleware import STATE
from pandacea.api.node import NODE, NodeContext, Readiness
from pandacea.api.nonces import GroupCommitNonces, MemoryNonces
from pandacea.api.rate_limit import RateLimiter, StreamLimiter
from pandacea.api.routes import add_routes
from pandacea.api.routes.about import publish_openapi
from pandacea.api.server import HttpServer, create_app
from pandacea.app import factories
from pandacea.app.background import supervise_task
from pandacea.app.settlement import SettlementWatch
from pandacea.app.startup import Adapters
from pandacea.app.workers import Workers
from pandacea.chain.spenders.erc1271 import Erc1271Verifier
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.flows.accept_job import SubmitPorts
from pandacea.flows.approve_code import CodeApprovalPorts
from pandacea.flows.uploads import UploadStore
from pandacea.tasks import TaskSupervisor
from pandacea_sdk.protocol.json_types import JsonObject
from pandacea_sdk.protocol.signing import CLOCK_SKEW_SECONDS, SigningPolicy

SPENDER_RATE: Final = (50.0, 200.0)
"""Signed requests of one Spender: how many a second, and how many at once."""


async def serve_http(
    config: Config,
    adapters: Adapters,
    submit: SubmitPorts,
    uploads: UploadStore,
    workers: Workers,
    watch: SettlementWatch,
    supervisor: TaskSupervisor,
    stack: AsyncExitStack,
    requests_since: int,
) -> HttpServer:
    """Start the HTTP server; `stack` stops it. Requests signed before `requests_since` (Unix seconds) are refused.

    Raises:
        BadConfig: the address cannot be bound, or the TLS certificate cannot be used.
    """
    listener = factories.listener_of(config.server, config.store.upload_mb)
    app = create_app(listener.limits)
    app[STATE].observe_request = adapters.metrics.observe_request
    app[AUTHENTICATOR] = _authenticator(config, adapters, supervisor, stack, requests_since)
    app[NODE] = NodeContext(
        earner=Address(config.earner.address),
        database=adapters.database,
        leases=adapters.follower.lease_cache,
        catalogue=adapters.catalogue,
        submit=submit,
        chain_id=submit.chain_id,
        contract=submit.contract,
        privacy=submit.privacy,
        limits=submit.limits,
        results=submit.results,
        max_wait_seconds=submit.queue.max_wait_seconds,
        notifier=adapters.notifier,
        clock=adapters.clock,
        streams=StreamLimiter(),
        uploads=uploads,
        approve=CodeApprovalPorts(
            adapters.database, adapters.follower.lease_cache, adapters.catalogue, submit.checker, adapters.clock
        ),
        well_known=_well_known(config, adapters),
        readiness=lambda: _readiness(adapters, submit, workers, watch, supervisor),
    )
    add_routes(app)
    publish_openapi(app, __version__)
    server = HttpServer(app, listener)
    await server.start()
    stack.push_async_callback(server.stop)
    if listener.tls is not None:
        supervise_task(supervisor, server.reload_tls_forever(), "tls", stack)
    return server


def _authenticator(
    config: Config, adapters: Adapters, supervisor: TaskSupervisor, stack: AsyncExitStack, requests_since: int
) -> Authenticator:
    nonces = GroupCommitNonces(adapters.database.spend_nonces)
    supervise_task(supervisor, nonces.run(), "nonces", stack)
    wallets = Erc1271Verifier(
        adapters.follower.endpoints,
        adapters.follower.lease_cache.chain_status,
        lambda: adapters.follower.spender_accounts,
        frozenset(map(Address, config.blockchain.contract_wallets)),
    )
    stack.push_async_callback(wallets.close)
    return Authenticator(
        SigningPolicy(adapters.chain_id, frozenset(authority.lower() for authority in config.authorities)),
        adapters.clock,
        LeaseSpenders(adapters.follower.lease_cache),
        nonces,
        stranger_nonces=MemoryNonces(adapters.clock.now, CLOCK_SKEW_SECONDS),
        stranger_rate=RateLimiter(5, 20, time.monotonic),
        peer_rate=RateLimiter(1, 5, time.monotonic),
        spender_rate=RateLimiter(*SPENDER_RATE, time.monotonic),
        wallets=wallets,
        requests_since=requests_since,
    )


def _well_known(config: Config, adapters: Adapters) -> JsonObject:
    environment: JsonObject = {
        "kind": adapters.identity.kind,
        "environment": adapters.identity.environment,
        "guest": adapters.identity.guest,
    }
    if adapters.identity.packages:
        environment["packages"] = list(adapters.identity.packages)
    document: JsonObject = {
        "chain_id": adapters.chain_id,
        "contract": adapters.contract,
        "earner": config.earner.address,
        "authorities": list(config.authorities),
        "version": __version__,
        "environment": environment,
        "signer": adapters.signer.address.lower(),
    }
    return keys.sign_document(adapters.signer, document)


def _readiness(
    adapters: Adapters, submit: SubmitPorts, workers: Workers, watch: SettlementWatch, supervisor: TaskSupervisor
) -> Readiness:
    """Return whether a computation that is sent now would run, and the reason of each part that does not allow it.

    Anybody may ask, so no figure here depends on a run: free bytes would tell how large a held result is.
    """
    status = adapters.follower.lease_cache.chain_status()
    reasons = {
        "database": adapters.engine.failure_reason,
        "chain": status.not_ready_reason,
        "workers": workers.stuck_reason(submit.limits.time_seconds),
        "boxes": adapters.sandbox.pool.unavailable_reason,
        "results": submit.results.find_disk_shortage(submit.limits) and "the disk has no room for another result",
        "node": "it is stopping" if workers.stopping else supervisor.first_ended and f"its task {supervisor.first_ended} has ended",
    }
    parts: JsonObject = {name: reason or "ok" for name, reason in reasons.items()}
    parts |= {
        "head": status.head_number,
        "confident": status.confident_block,
        "sandbox": adapters.identity.kind,
        "settlement": "it is behind; the log and `pandacea doctor` say why" if watch.trouble else "ok",
    }
    return Readiness(status.is_ready and not any(reasons.values()), parts)
