"""`pandacea run`: from a configuration to a serving node, and back down in reverse."""

from __future__ import annotations

import asyncio
import gc
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from pandacea import __version__, keys
from pandacea.api.auth import AUTHENTICATOR, Authenticator
from pandacea.api.edge_limits import EdgeLimits
from pandacea.api.node import NODE, Node, Readiness
from pandacea.api.nonces import GroupCommitNonces, MemoryNonces
from pandacea.api.routes import add_routes
from pandacea.api.routes.about import describe
from pandacea.api.server import Listener, Server, Tls, create_app
from pandacea.api.throttle import Rate, Streams
from pandacea.app import parts
from pandacea.app.desk import Desk, release_ports, serve_desk
from pandacea.app.loops import Loop
from pandacea.app.measures import measure
from pandacea.app.product_desk import ProductDesk
from pandacea.app.workers import Workers
from pandacea.catalogue.codecheck import ChildCodeChecker
from pandacea.catalogue.products_file import read as read_products
from pandacea.catalogue.registry import Catalogue
from pandacea.catalogue.tables import Tables
from pandacea.chain.follower import Follower
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.domain.limits import MIB
from pandacea.errors import Broken
from pandacea.flows.announce import announce
from pandacea.flows.approve import ApprovePorts
from pandacea.flows.execute import ExecutePorts, run_next
from pandacea.flows.housekeeping import SweepPorts, sweep
from pandacea.flows.ports import Sandbox, SandboxIdentity
from pandacea.flows.privacy import LeasedPrivacy
from pandacea.flows.recover import recover
from pandacea.flows.seal import Sealer
from pandacea.flows.settle import settle
from pandacea.flows.shelf import Shelf
from pandacea.flows.submit import Queue, SubmitPorts
from pandacea.flows.uploads import Room, Uploads
from pandacea.flows.watch import Watch
from pandacea.sandbox.choose import choose
from pandacea.sandbox.environments import read_environment
from pandacea.store.books import SqlBooks
from pandacea.store.products import SqlProductBook
from pandacea.store.session import Database
from pandacea.telemetry.metrics import MetricsServer
from pandacea.telemetry.notify import ServiceManager
from pandacea_sdk.protocol.signing import SigningPolicy

log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS: Final = 300.0
DATABASE_START_SECONDS: Final = 120.0
"""How long the start waits for a database server: after a power cut it may take longer than the node to come up."""
CHAIN_START_SECONDS: Final = 30.0
"""How long the start waits for the chain before it serves 503s and goes on trying."""


async def serve(config: Config, manager: ServiceManager) -> None:
    """Run the node until SIGINT or SIGTERM.

    Raises:
        Broken: something on this machine must be mended first; the sentence says what.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with AsyncExitStack() as stack:
        server, workers, tasks = await _start(config, stack)
        # Modules and adapters live as long as the node: full collections need not walk them, which held the event loop for 80 ms.
        gc.collect()
        gc.freeze()
        manager.tell("READY=1")
        log.info("node.serving", host=config.server.host, port=server.port, version=__version__)
        await _until(stop, [*tasks, asyncio.create_task(manager.keep_alive(), name="watchdog")])
        manager.tell("STOPPING=1")
        log.info("node.stopping", grace_seconds=config.server.grace_seconds)
        workers.watch.stop()
        await asyncio.gather(server.stop(), workers.drain(config.server.grace_seconds))
    log.info("node.stopped")


async def _until(stop: asyncio.Event, tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for a signal; a loop that ends by itself is a defect and ends the node with its exception."""
    waiting = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task is not waiting and task.get_name() != "watchdog":
                task.result()
        if waiting not in done:
            await waiting
    finally:
        waiting.cancel()


@dataclass(frozen=True, slots=True)
class _Core:
    """What is opened before anything serves."""

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


async def _start(config: Config, stack: AsyncExitStack) -> tuple[Server, Workers, list[asyncio.Task[None]]]:
    core = await _open(config, stack)
    shelf, uploads = _folders(config, core)
    limits, privacy_section = config.privacy.limits.limits(), config.privacy
    earner = Address(config.earner.address)
    privacy = LeasedPrivacy(core.follower.book, core.catalogue, core.sandbox, earner, core.clock)
    workers = Workers(privacy_section.workers, core.watch)
    execute = ExecutePorts(
        books=core.books,
        book=core.follower.book,
        catalogue=core.catalogue,
        products=core.products,
        privacy=privacy,
        sealer=Sealer(earner, core.signer, core.identity, limits, privacy_section.threads, __version__),
        clock=core.clock,
        limits=limits,
        threads=privacy_section.threads,
        shelf=shelf,
        uploads_dir=uploads.folder,
        post_results=config.settlement.post_results,
        watch=core.watch,
        pause=lambda: workers.stopping,
    )
    await recover(execute)
    await uploads.sweep_strangers()
    workers.begin(lambda: run_next(execute))
    submit = SubmitPorts(
        chain_id=core.chain_id,
        contract=core.contract,
        books=core.books,
        book=core.follower.book,
        catalogue=core.catalogue,
        privacy=privacy,
        checker=ChildCodeChecker(refused_imports=frozenset(privacy_section.refused_imports)),
        clock=core.clock,
        limits=limits,
        queue=Queue(privacy_section.queue_per_spender, privacy_section.queue_total, privacy_section.queue_seconds),
        wake=workers.wake,
        shelf=shelf,
    )
    release = release_ports(config, core.books, core.watch)
    sweeping = SweepPorts(core.books, core.clock, shelf, limits, uploads, release, config.store.keep_results_seconds)
    housekeeping = Loop("housekeeping", lambda: _swept(sweeping), idle=HOUSEKEEPING_SECONDS)
    loops = [*workers.loops, *_deliveries(config, core, stack), housekeeping]
    alone = _task(core.database.superseded(), "database", stack)
    tasks = [core.following, alone, *(_task(loop.run(), loop.name, stack) for loop in loops)]
    if config.telemetry.metrics_port is not None:
        metrics = MetricsServer(config.telemetry.metrics_port, lambda: measure(core.follower, config.store.state_dir))
        await metrics.start()
        stack.push_async_callback(metrics.stop)
    await serve_desk(
        Desk(release, core.clock, ProductDesk(core.products, config.privacy.data_dir, core.catalogue)),
        config.store.state_dir,
        stack,
    )
    return await _listen(config, core, submit, uploads, stack, tasks), workers, tasks


async def _swept(ports: SweepPorts) -> None:
    await sweep(ports)


def _folders(config: Config, core: _Core) -> tuple[Shelf, Uploads]:
    """Where results and uploads lie."""
    store = config.store
    for name in ("results", "uploads"):
        (store.state_dir / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    room = Room(
        spender_bytes=store.uploads_mb_per_spender * MIB,
        total_bytes=store.uploads_mb * MIB,
        seconds=store.keep_uploads_seconds,
    )
    shelf = Shelf(store.state_dir / "results", store.max_results_mb * MIB)
    return shelf, Uploads(core.books, core.clock, store.state_dir / "uploads", room)


async def _open(config: Config, stack: AsyncExitStack) -> _Core:
    """Open in the order in which a mistake is cheapest to name: keys, state, data, chain, box."""
    signer = parts.signer(config)
    contract = parts.contract_of(config)
    await stack.enter_async_context(parts.held(config.store.state_dir))
    db = await stack.enter_async_context(parts.database(config, alone=True, patience=DATABASE_START_SECONDS))
    clock = parts.SystemClock()
    products = SqlProductBook(db)
    stated = read_products(config.privacy.data_dir)
    follower = await stack.enter_async_context(parts.follower(config, contract, db, Address(signer.address)))
    following = _task(follower.run(), "follower", stack)
    sandbox, reason = await choose(config.privacy.sandbox, *parts.sandbox_settings(config))
    identity = await sandbox.open()
    stack.push_async_callback(sandbox.close)
    for warning in sandbox.warnings:
        log.warning("sandbox.weaker", because=warning)
    log.info("sandbox.open", kind=identity.kind, reason=reason, environment=identity.environment)
    tables = Tables(config.store.state_dir / "tables", sandbox, config.privacy.limits.limits())
    catalogue = Catalogue(products, lambda digest: keys.sign_personal(signer, digest), clock, tables)
    await catalogue.register(stated, config.privacy.data_dir)
    chain_id = await _chain_id(follower, following)
    return _Core(
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


async def _chain_id(follower: Follower, following: asyncio.Task[None]) -> int:
    """The chain's id, once an endpoint told it: signatures are bound to it."""
    deadline = time.monotonic() + CHAIN_START_SECONDS
    while follower.endpoints.chain_id is None:
        if following.done():
            following.result()
        if time.monotonic() > deadline:
            raise Broken(
                "No RPC endpoint of blockchain.rpc_url told its chain id. Start the endpoint, mend the URL, or set blockchain.chain_id."
            )
        await asyncio.sleep(0.05)
    return follower.endpoints.chain_id


def _deliveries(config: Config, core: _Core, stack: AsyncExitStack) -> list[Loop]:
    loops = []
    if config.settlement.post_results:
        poster = parts.poster(config, core.follower, core.database, core.contract, core.signer)
        loops.append(Loop("settle", lambda: settle(core.books, poster, core.clock)))
    if (broker := parts.broker(config)) is not None:
        stack.push_async_callback(broker.close)
        loops.append(Loop("announce", lambda: announce(core.books, broker, core.clock)))
    return loops


async def _listen(
    config: Config, core: _Core, submit: SubmitPorts, uploads: Uploads, stack: AsyncExitStack, tasks: list[asyncio.Task[None]]
) -> Server:
    section = config.server
    edge = EdgeLimits(connections=section.max_connections)
    app = create_app(edge)

    async def insert_many(rows: Sequence[tuple[str, str, int]]) -> list[bool]:
        async with core.books.write() as work:
            fresh = await work.nonces.insert_many(rows)
            await work.commit()
            return fresh

    nonces = GroupCommitNonces(insert_many)
    tasks.append(_task(nonces.run(), "nonces", stack))
    authorities = frozenset(authority.lower() for authority in config.authorities)
    app[AUTHENTICATOR] = Authenticator(
        SigningPolicy(core.chain_id, authorities),
        core.clock,
        parts.Spenders(core.follower.book),
        nonces,
        stranger_nonces=MemoryNonces(core.clock.now, skew=30),
        stranger_rate=Rate(1, 5, time.monotonic),
    )
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
    tls = Tls(section.tls_certificate, section.tls_key) if section.tls_certificate and section.tls_key else None
    server = Server(
        app,
        Listener(
            section.host, section.port, tls, behind_proxy=section.behind_proxy, grace_seconds=section.grace_seconds, limits=edge
        ),
    )
    await server.start()
    stack.push_async_callback(server.stop)
    if tls is not None:
        tasks.append(_task(server.reload_tls(), "tls", stack))
    return server


def _well_known(config: Config, core: _Core) -> dict[str, Any]:
    environment: dict[str, Any] = {
        "kind": core.identity.kind,
        "environment": core.identity.environment,
        "guest": core.identity.guest,
    }
    if core.identity.kind == "bubblewrap":
        environment["packages"] = list(read_environment(config.privacy.environment).packages)
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


def _readiness(core: _Core, state_dir: Path) -> Readiness:
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


def _task(work: Any, name: str, stack: AsyncExitStack) -> asyncio.Task[None]:
    """Run a coroutine for as long as the node lives; cancelled and awaited when the stack unwinds."""
    task: asyncio.Task[None] = asyncio.create_task(work, name=name)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)
    return task
