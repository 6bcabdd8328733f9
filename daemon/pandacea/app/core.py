"""What is opened before anything serves, in the order in which a mistake is cheapest to name."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

import structlog

from pandacea import keys
from pandacea.api.server import check_binding, check_free
from pandacea.app import parts
from pandacea.app.leases import followed
from pandacea.app.loops import task
from pandacea.app.product_desk import read_stated
from pandacea.catalogue.registry import Catalogue
from pandacea.catalogue.tables import Tables
from pandacea.chain.follower import Follower
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.errors import Broken, Unavailable
from pandacea.flows.ports import Sandbox, SandboxIdentity
from pandacea.flows.watch import Watch
from pandacea.sandbox.choose import choose
from pandacea.store.books import SqlBooks
from pandacea.store.products import SqlProductBook
from pandacea.store.session import Database

log = structlog.get_logger(__name__)

DATABASE_START_SECONDS: Final = 120.0
"""How long the start waits for a database server: after a power cut it may take longer than the node to come up."""
CHAIN_START_SECONDS: Final = 15.0
"""How long the start waits for an endpoint to tell the chain's id; then the one followed before must do, and the node serves 503s."""


@dataclass(frozen=True, slots=True)
class Core:
    """The adapters, opened."""

    database: Database
    books: SqlBooks
    products: SqlProductBook
    catalogue: Catalogue
    follower: Follower
    following: asyncio.Task[None]
    chain_id: int
    contract: Address
    sandbox: Sandbox
    identity: SandboxIdentity
    signer: keys.KeystoreSigner
    clock: parts.SystemClock
    watch: Watch


async def open_core(config: Config, stack: AsyncExitStack) -> Core:
    """Open keys, state, data, chain and box; `stack` closes them in reverse.

    Raises:
        BadConfig, Broken: what must be mended first.
    """
    listener = parts.listener(config)
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
    follower = await stack.enter_async_context(parts.follower(config, contract, db, Address(signer.address)))
    following = task(follower.run(), "follower", stack)
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
    chain_id = await _chain_id(follower, following, config, db)
    return Core(
        database=db,
        books=SqlBooks(db),
        products=products,
        catalogue=catalogue,
        follower=follower,
        following=following,
        chain_id=chain_id,
        contract=contract.address,
        sandbox=sandbox,
        identity=identity,
        signer=signer,
        clock=clock,
        watch=Watch(),
    )


async def _chain_id(follower: Follower, following: asyncio.Task[None], config: Config, db: Database) -> int:
    """The chain's id, to which signatures are bound: what an endpoint tells or, while none answers, what was followed before.

    Raises:
        Broken: none answers, and nothing was followed before; BadConfig: more than one chain was.
    """
    deadline = time.monotonic() + CHAIN_START_SECONDS
    endpoints = follower.endpoints
    while endpoints.chain_id is None:
        if following.done():
            following.result()
        if time.monotonic() > deadline:
            before = await _followed_before(config, db)
            if endpoints.chain_id is None:
                log.warning("chain.from-database", chain=before, because="no RPC endpoint of blockchain.rpc_url answers")
                endpoints.chain_id = before  # an endpoint that answers later must be of it
            break
        await asyncio.sleep(0.05)
    return endpoints.chain_id


async def _followed_before(config: Config, db: Database) -> int:
    try:
        contract = await followed(config, db)
    except Unavailable as never:
        raise Broken(
            "No RPC endpoint of blockchain.rpc_url told its chain id, and the database knows none for this contract. "
            "Start the endpoint, mend the URL, or set blockchain.chain_id."
        ) from never
    assert contract.chain_id is not None
    return contract.chain_id
