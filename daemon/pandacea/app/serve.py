"""`pandacea run`: from a configuration to a serving node, and back down in reverse."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import Final

import structlog

from pandacea import __version__
from pandacea.api.server import Server
from pandacea.app import parts
from pandacea.app.core import Core, open_core
from pandacea.app.desk import Desk, release_ports, serve_desk
from pandacea.app.interpreter import tune
from pandacea.app.lease_desk import LeaseDesk
from pandacea.app.listening import listen
from pandacea.app.loops import Loop, start_task
from pandacea.app.measures import measure
from pandacea.app.product_desk import ProductDesk
from pandacea.app.workers import Workers, most_running, workers_of
from pandacea.catalogue.codecheck import ChildCodeChecker
from pandacea.chain.follower import Follower
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.domain.limits import MIB
from pandacea.errors import Unavailable
from pandacea.flows.announce import announce
from pandacea.flows.background import Background
from pandacea.flows.execute import ExecutePorts, run_next
from pandacea.flows.housekeeping import SweepPorts, sweep
from pandacea.flows.privacy import LeasedPrivacy
from pandacea.flows.records import ChainRecords
from pandacea.flows.recover import recover
from pandacea.flows.seal import Sealer
from pandacea.flows.settle import settle
from pandacea.flows.shelf import Shelf
from pandacea.flows.submit import Queue, SubmitPorts
from pandacea.flows.uploads import Room, Uploads
from pandacea.telemetry.metrics import MetricsServer
from pandacea.telemetry.notify import ServiceManager

log = structlog.get_logger(__name__)

HOUSEKEEPING_SECONDS: Final = 60.0
PRESENCE_SECONDS: Final = 30.0


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
        background = Background()
        server, workers = await _start(config, background, stack)
        start_task(background, manager.keep_alive(), "watchdog", stack)
        tune()
        manager.tell("READY=1")
        log.info("node.serving", host=config.server.host, port=server.port, version=__version__)
        await _until(stop, background)
        manager.tell("STOPPING=1")
        log.info("node.stopping", grace_seconds=config.server.grace_seconds)
        workers.watch.stop()
        await asyncio.gather(server.stop(), workers.drain(config.server.grace_seconds))
    log.info("node.stopped")


async def _until(stop: asyncio.Event, background: Background) -> None:
    """Wait for a signal; a part of the node that ends by itself is a defect and ends the node with its exception."""
    waiting = asyncio.create_task(stop.wait(), name="signal")
    ending = asyncio.create_task(background.wait_for_an_end(), name="any-end")
    try:
        await asyncio.wait([waiting, ending], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() or waiting.cancelled():
            await ending
    finally:
        waiting.cancel()
        ending.cancel()
        await asyncio.gather(waiting, ending, return_exceptions=True)


async def _start(config: Config, background: Background, stack: AsyncExitStack) -> tuple[Server, Workers]:
    core = await open_core(config, background, stack)
    shelf, uploads = _folders(config, core)
    limits, privacy_section = config.privacy.limits.limits(), config.privacy
    earner = Address(config.earner.address)
    privacy = LeasedPrivacy(core.follower.book, core.catalogue, core.sandbox, earner, core.clock)
    number = workers_of(privacy_section, processors=len(os.sched_getaffinity(0)), memory_bytes=_memory_bytes())
    log.info("node.workers", number=number, of_one_spender=most_running(number))
    workers = Workers(number, core.watch)
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
        most_running=most_running(number),
        pause=lambda: workers.stopping,
    )
    await recover(execute)
    await uploads.sweep_strangers()
    workers.begin(lambda mode: run_next(execute, (mode,)))
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
    sweeping = SweepPorts(
        core.books,
        core.clock,
        shelf,
        limits,
        uploads,
        release,
        keep_seconds=config.store.keep_results_seconds,
        keep_scripts_seconds=config.store.keep_scripts_seconds,
    )
    housekeeping = Loop("housekeeping", lambda: _swept(sweeping), idle=HOUSEKEEPING_SECONDS)
    loops = [*workers.loops, *_deliveries(config, core, stack), housekeeping]
    start_task(background, core.database.superseded(), "database", stack)
    for loop in loops:
        start_task(background, loop.run(), loop.name, stack)
    if config.telemetry.metrics_port is not None:
        metrics = MetricsServer(config.telemetry.metrics_port, lambda: measure(core.follower, config.store.state_dir))
        await metrics.start()
        stack.push_async_callback(metrics.stop)
    await serve_desk(
        Desk(
            release,
            core.clock,
            ProductDesk(core.products, config.privacy.data_dir, core.catalogue),
            LeaseDesk(lambda: _records(core.follower), core.products, core.clock, core.follower.book),
        ),
        config.store.state_dir,
        stack,
    )
    return await listen(config, core, submit, uploads, workers, background, stack), workers


async def _records(follower: Follower) -> ChainRecords:
    if follower.records is None or follower.book.view is None:
        raise Unavailable("The node has not read the leases from its database yet. Try again in a moment.")
    return follower.records


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def _swept(ports: SweepPorts) -> None:
    await sweep(ports)


def _folders(config: Config, core: Core) -> tuple[Shelf, Uploads]:
    """Where results and uploads lie."""
    store = config.store
    for name in ("results", "uploads"):
        (store.state_dir / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    room = Room(
        spender_bytes=store.uploads_mb_per_spender * MIB,
        total_bytes=store.uploads_mb * MIB,
        seconds=store.keep_uploads_seconds,
    )
    shelf = Shelf(store.state_dir / "results", store.max_results_mb * MIB, store.results_mb_per_spender * MIB)
    return shelf, Uploads(core.books, core.clock, store.state_dir / "uploads", room)


def _deliveries(config: Config, core: Core, stack: AsyncExitStack) -> list[Loop]:
    loops = []
    if config.settlement.post_results:
        poster = parts.poster(config, core.follower, core.database, core.contract, core.signer)
        loops.append(Loop("settle", lambda: settle(core.books, poster, core.clock)))
    if (broker := parts.broker(config)) is not None:
        stack.push_async_callback(broker.close)
        loops.append(Loop("presence", broker.present, idle=PRESENCE_SECONDS))
        loops.append(Loop("announce", lambda: announce(core.books, broker, core.clock)))
    return loops
