"""What is opened before anything serves, in the order in which a mistake is cheapest to name."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import structlog

from pandacea import keys
from pandacea.api.server import check_binding, check_free
from pandacea.app import factories
from pandacea.app.control.products import read_declared_products
from pandacea.app.loops import supervise_task
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

log = structlog.get_logger(__name__)

DATABASE_START_SECONDS: Final = 120.0
"""How long the start waits for a database server: after a power cut it may take longer than the node to come up."""
CHAIN_START_SECONDS: Final = 15.0
"""How long the start waits for endpoints to answer or fail, so that one of another chain ends it before anything is served."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters, opened."""

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


async def open_adapters(config: Config, background: TaskSupervisor, stack: AsyncExitStack) -> Adapters:
    """Open keys, state, data, chain and box; `stack` closes them in reverse.

    Raises:
        BadConfig, Broken: what must be mended first.
    """
    listener = factories.listener_of(config.server)
    check_binding(listener)
    factories.require_data_folder(config)
    signer = factories.unlock_signer(config)
    contract = factories.resolve_contract(config)
    await stack.enter_async_context(factories.lock_state_dir(config.store.state_dir))
    await check_free(listener)  # before the self-test and the conversion of tables, which may take minutes
    db = await stack.enter_async_context(factories.open_database(config, exclusive=True, timeout=DATABASE_START_SECONDS))
    clock = SystemClock()
    products = SqlProductStore(db)
    stated = await read_declared_products(config.privacy.data_dir, products)
    await factories.require_same_chain(contract, db)
    follower = await stack.enter_async_context(factories.open_follower(config, contract, db, Address(signer.address)))
    following = supervise_task(background, follower.run(), "follower", stack)
    sandbox, reason = await select_backend(config.privacy.sandbox, *factories.sandbox_settings(config))
    sandbox.pool.on_shortage = lambda because: log.warning(
        "sandbox.pool-short", because=because, meanwhile="computations start cold"
    )
    identity = await sandbox.start()
    stack.push_async_callback(sandbox.stop)
    for warning in sandbox.warnings:
        log.warning("sandbox.weaker", because=warning)
    log.info("sandbox.open", kind=identity.kind, reason=reason, environment=identity.environment)
    tables = TableStore(config.store.state_dir / "tables", sandbox, config.privacy.limits.to_limits())
    catalogue = ProductCatalogue(products, lambda digest: keys.sign_personal(signer, digest), clock, tables)
    await catalogue.register(stated, config.privacy.data_dir)
    await _first_look(follower, following)
    return Adapters(
        engine=db,
        database=SqlDatabase(db, factories.delivery_channels(config)),
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
    )


async def _first_look(follower: Follower, following: asyncio.Task[None]) -> None:
    """Wait until the endpoints were asked once; without an answer the node serves, and says 503.

    Raises:
        Broken: one is not of the configured chain or contract.
    """
    looked = asyncio.create_task(follower.endpoints_tried.wait())
    try:
        await asyncio.wait([following, looked], timeout=CHAIN_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        looked.cancel()
    if following.done():
        following.result()
