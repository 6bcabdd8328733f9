"""Opens keys, database, chain follower and sandbox before serving; cheap checks first, so that a misconfiguration fails early."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import structlog

from pandacea import keys
from pandacea.api.server import check_binding, check_free
from pandacea.app import factories
from pandacea.app.background import supervise_task
from pandacea.app.control.products import read_declared_products
from pandacea.catalogue.registry import ProductCatalogue
from pandacea.catalogue.table_store import TableStore
from pandacea.chain.follower import Follower
from pandacea.clock import SystemClock
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.flows.live_output import JobNotifier
from pandacea.flows.ports import SandboxIdentity
from pandacea.sandbox.select_backend import select_backend
from pandacea.sandbox.service import SandboxService
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.products import SqlProductStore
from pandacea.store.unit_of_work import SqlDatabase
from pandacea.tasks import TaskSupervisor
from pandacea.telemetry.metrics import NodeMetrics

log = structlog.get_logger(__name__)

DATABASE_START_SECONDS: Final = 120.0
"""Seconds that the start waits for a database server: after a power cut it may take longer to start than the node."""
CHAIN_START_SECONDS: Final = 15.0
"""Seconds that the start waits for endpoints to answer or fail, so that one of another chain ends it before anything is served."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """The opened adapters of a node."""

    engine: DatabaseEngine
    database: SqlDatabase
    products: SqlProductStore
    catalogue: ProductCatalogue
    follower: Follower
    chain_id: int
    contract: Address
    sandbox: SandboxService
    identity: SandboxIdentity
    signer: keys.KeystoreSigner
    clock: SystemClock
    notifier: JobNotifier
    metrics: NodeMetrics


async def open_adapters(config: Config, supervisor: TaskSupervisor, stack: AsyncExitStack) -> Adapters:
    """Open keys, state folder, database, follower, sandbox and catalogue; `stack` closes them in reverse order.

    Raises:
        BadConfig, Broken: something must be corrected before the node can start; the text says what.
    """
    listener = factories.listener_of(config.server, config.store.upload_mb)
    check_binding(listener)
    factories.require_data_folder(config)
    factories.make_publisher(config)  # the files that they name are read, so that a bad one ends the start now
    factories.make_webhook_sender(config)
    signer = factories.unlock_signer(config)
    contract = factories.resolve_contract(config)
    await stack.enter_async_context(factories.lock_state_dir(config.store.state_dir))
    await check_free(listener)  # before the self-test and the conversion of tables, which may take minutes
    engine = await stack.enter_async_context(factories.open_database(config, exclusive=True, timeout=DATABASE_START_SECONDS))
    clock = SystemClock()
    products = SqlProductStore(engine)
    declared = await read_declared_products(config.privacy.data_dir, products)
    await factories.require_same_chain(contract, engine)
    follower = await stack.enter_async_context(factories.open_follower(config, contract, engine, Address(signer.address)))
    metrics = NodeMetrics()
    follower.observe_lag = metrics.observe_lag
    following = supervise_task(supervisor, follower.run(), "follower", stack)
    sandbox, reason = await select_backend(config.privacy.sandbox, *factories.sandbox_settings(config))
    sandbox.pool.on_shortage = lambda shortage: log.warning(
        "sandbox.pool_short", reason=shortage, meanwhile="computations start cold"
    )
    identity = await sandbox.start()
    stack.push_async_callback(sandbox.stop)
    for warning in sandbox.warnings:
        log.warning("sandbox.weaker", reason=warning)
    log.info("sandbox.open", kind=identity.kind, reason=reason, environment=identity.environment)
    tables = TableStore(config.store.state_dir / "tables", sandbox, config.privacy.limits.to_limits())
    catalogue = ProductCatalogue(products, lambda digest: keys.sign_personal(signer, digest), clock, tables)
    await catalogue.register(declared, config.privacy.data_dir)
    await _wait_for_endpoints(follower, following)
    return Adapters(
        engine=engine,
        database=factories.open_books(config, engine),
        products=products,
        catalogue=catalogue,
        follower=follower,
        chain_id=contract.chain_id,
        contract=contract.address,
        sandbox=sandbox,
        identity=identity,
        signer=signer,
        clock=clock,
        notifier=JobNotifier(),
        metrics=metrics,
    )


async def _wait_for_endpoints(follower: Follower, following: asyncio.Task[None]) -> None:
    """Wait until every endpoint was asked once. Without an answer the node starts all the same, and answers 503.

    Raises:
        Broken: an endpoint is not of the configured chain, or shows another contract.
    """
    tried = asyncio.create_task(follower.endpoints_tried.wait())
    try:
        await asyncio.wait([following, tried], timeout=CHAIN_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        tried.cancel()
    if following.done():
        following.result()
