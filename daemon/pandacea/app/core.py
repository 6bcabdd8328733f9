"""What is opened before anything serves, in the order in which a mistake is cheapest to name."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import structlog

from pandacea import keys
from pandacea.api.server import check_binding, check_free
from pandacea.app import parts
from pandacea.app.loops import start_task
from pandacea.app.product_desk import read_stated
from pandacea.catalogue.registry import Catalogue
from pandacea.catalogue.tables import Tables
from pandacea.chain.follower import Follower
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.flows.background import Background
from pandacea.flows.ports import SandboxIdentity
from pandacea.flows.watch import Watch
from pandacea.sandbox.choose import choose
from pandacea.sandbox.runner import BoxSandbox
from pandacea.store.books import SqlBooks
from pandacea.store.products import SqlProductBook
from pandacea.store.session import Database

log = structlog.get_logger(__name__)

DATABASE_START_SECONDS: Final = 120.0
"""How long the start waits for a database server: after a power cut it may take longer than the node to come up."""
CHAIN_START_SECONDS: Final = 15.0
"""How long the start waits for endpoints to answer or fail, so that one of another chain ends it before anything is served."""


@dataclass(frozen=True, slots=True)
class Core:
    """The adapters, opened."""

    database: Database
    books: SqlBooks
    products: SqlProductBook
    catalogue: Catalogue
    follower: Follower
    chain_id: int
    contract: Address
    sandbox: BoxSandbox
    identity: SandboxIdentity
    signer: keys.KeystoreSigner
    clock: parts.SystemClock
    watch: Watch


async def open_core(config: Config, background: Background, stack: AsyncExitStack) -> Core:
    """Open keys, state, data, chain and box; `stack` closes them in reverse.

    Raises:
        BadConfig, Broken: what must be mended first.
    """
    listener = parts.listener(config.server)
    check_binding(listener)
    parts.require_data_folder(config)
    signer = parts.signer(config)
    contract = parts.contract_of(config)
    await stack.enter_async_context(parts.held(config.store.state_dir))
    await check_free(listener)  # before the self-test and the conversion of tables, which may take minutes
    db = await stack.enter_async_context(parts.database(config, alone=True, patience=DATABASE_START_SECONDS))
    clock = parts.SystemClock()
    products = SqlProductBook(db)
    stated = await read_stated(config.privacy.data_dir, products)
    await parts.refuse_other_chain(contract, db)
    follower = await stack.enter_async_context(parts.follower(config, contract, db, Address(signer.address)))
    following = start_task(background, follower.run(), "follower", stack)
    sandbox, reason = await choose(config.privacy.sandbox, *parts.sandbox_settings(config))
    sandbox.pool.on_short = lambda because: log.warning("sandbox.pool-short", because=because, meanwhile="computations start cold")
    identity = await sandbox.open()
    stack.push_async_callback(sandbox.close)
    for warning in sandbox.warnings:
        log.warning("sandbox.weaker", because=warning)
    log.info("sandbox.open", kind=identity.kind, reason=reason, environment=identity.environment)
    tables = Tables(config.store.state_dir / "tables", sandbox, config.privacy.limits.limits())
    catalogue = Catalogue(products, lambda digest: keys.sign_personal(signer, digest), clock, tables)
    await catalogue.register(stated, config.privacy.data_dir)
    await _first_look(follower, following)
    return Core(
        database=db,
        books=SqlBooks(db, parts.channels(config)),
        products=products,
        catalogue=catalogue,
        follower=follower,
        chain_id=contract.chain_id,
        contract=contract.address,
        sandbox=sandbox,
        identity=identity,
        signer=signer,
        clock=clock,
        watch=Watch(),
    )


async def _first_look(follower: Follower, following: asyncio.Task[None]) -> None:
    """Wait until the endpoints were asked once; without an answer the node serves, and says 503.

    Raises:
        Broken: one is not of the configured chain or contract.
    """
    looked = asyncio.create_task(follower.looked.wait())
    try:
        await asyncio.wait([following, looked], timeout=CHAIN_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    finally:
        looked.cancel()
    if following.done():
        following.result()
