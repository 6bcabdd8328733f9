"""`pandacea run`: from a configuration to a serving node, and back down in reverse."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from typing import Final

import structlog

from pandacea import __version__
from pandacea.api.server import HttpServer
from pandacea.app import factories
from pandacea.app.control.leases import LeaseControl
from pandacea.app.control.products import ProductControl
from pandacea.app.control.server import ControlServer, make_release_ports, serve_control_socket
from pandacea.app.http_api import serve_http
from pandacea.app.loops import supervise_task
from pandacea.app.metrics import collect_metrics
from pandacea.app.startup import Adapters, open_adapters
from pandacea.app.tuning import tune_interpreter
from pandacea.app.workers import Workers, count_workers, max_running_per_spender
from pandacea.chain.follower import Follower
from pandacea.codecheck.check import ChildCodeChecker
from pandacea.config import Config
from pandacea.domain.ids import Address
from pandacea.domain.limits import MIB
from pandacea.errors import Unavailable
from pandacea.files.results import ResultStore
from pandacea.files.upload_files import UploadFiles
from pandacea.flows.accept_job import QueueLimits, SubmitPorts
from pandacea.flows.chain_store import ChainStore
from pandacea.flows.execute import ExecutePorts, run_next_job
from pandacea.flows.finish import recover_jobs
from pandacea.flows.outbox import deliver_commitments, deliver_events
from pandacea.flows.privacy import PrivacyService
from pandacea.flows.retention import RetentionPorts, apply_retention
from pandacea.flows.sign_result import ResultSigner
from pandacea.flows.uploads import UploadQuota, UploadStore
from pandacea.tasks import Loop, TaskSupervisor
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
        background = TaskSupervisor()
        server, workers = await _start(config, background, stack)
        supervise_task(background, manager.ping_watchdog(), "watchdog", stack)
        tune_interpreter()
        manager.notify("READY=1")
        log.info("node.serving", host=config.server.host, port=server.port, version=__version__)
        await _until(stop, background)
        manager.notify("STOPPING=1")
        log.info("node.stopping", grace_seconds=config.server.grace_seconds)
        workers.notifier.stop_waiting()
        await asyncio.gather(server.stop(), workers.drain(config.server.grace_seconds))
    log.info("node.stopped")


async def _until(stop: asyncio.Event, background: TaskSupervisor) -> None:
    """Wait for a signal; a part of the node that ends by itself is a defect and ends the node with its exception."""
    waiting = asyncio.create_task(stop.wait(), name="signal")
    ending = asyncio.create_task(background.wait_for_end(), name="any-end")
    try:
        await asyncio.wait([waiting, ending], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() or waiting.cancelled():
            await ending
    finally:
        waiting.cancel()
        ending.cancel()
        await asyncio.gather(waiting, ending, return_exceptions=True)


async def _start(config: Config, background: TaskSupervisor, stack: AsyncExitStack) -> tuple[HttpServer, Workers]:
    core = await open_adapters(config, background, stack)
    shelf, uploads = _folders(config, core)
    limits, privacy_section = config.privacy.limits.to_limits(), config.privacy
    earner = Address(config.earner.address)
    privacy = PrivacyService(core.follower.lease_cache, core.catalogue, core.sandbox, earner, core.clock)
    number = count_workers(privacy_section, processors=len(os.sched_getaffinity(0)), memory_bytes=_memory_bytes())
    log.info("node.workers", number=number, of_one_spender=max_running_per_spender(number))
    workers = Workers(number, core.notifier)
    execute = ExecutePorts(
        database=core.database,
        leases=core.follower.lease_cache,
        catalogue=core.catalogue,
        products=core.products,
        privacy=privacy,
        signer=ResultSigner(earner, core.signer, core.identity, limits, privacy_section.threads, __version__),
        clock=core.clock,
        limits=limits,
        threads=privacy_section.threads,
        results=shelf,
        upload_files=uploads.files,
        post_results=config.settlement.post_results,
        notifier=core.notifier,
        max_running_per_spender=max_running_per_spender(number),
        is_stopping=lambda: workers.stopping,
    )
    await recover_jobs(execute)
    await uploads.remove_unknown()
    workers.set_step(lambda mode: run_next_job(execute, (mode,)))
    submit = SubmitPorts(
        chain_id=core.chain_id,
        contract=core.contract,
        database=core.database,
        leases=core.follower.lease_cache,
        catalogue=core.catalogue,
        privacy=privacy,
        checker=ChildCodeChecker(refused_imports=frozenset(privacy_section.refused_imports)),
        clock=core.clock,
        limits=limits,
        queue=QueueLimits(privacy_section.queue_per_spender, privacy_section.queue_total, privacy_section.queue_seconds),
        wake_workers=workers.wake,
        results=shelf,
    )
    release = make_release_ports(config, core.database, core.notifier)
    sweeping = RetentionPorts(
        core.database,
        core.clock,
        shelf,
        limits,
        uploads,
        release,
        keep_results_seconds=config.store.keep_results_seconds,
        keep_scripts_seconds=config.store.keep_scripts_seconds,
    )
    housekeeping = Loop("housekeeping", lambda: _swept(sweeping), idle=HOUSEKEEPING_SECONDS)
    loops = [*workers.loops, *_deliveries(config, core, stack), housekeeping]
    supervise_task(background, core.engine.wait_until_superseded(), "database", stack)
    for loop in loops:
        supervise_task(background, loop.run(), loop.name, stack)
    if config.telemetry.metrics_port is not None:
        metrics = MetricsServer(config.telemetry.metrics_port, lambda: collect_metrics(core.follower, config.store.state_dir))
        await metrics.start()
        stack.push_async_callback(metrics.stop)
    await serve_control_socket(
        ControlServer(
            release,
            core.clock,
            ProductControl(core.products, config.privacy.data_dir, core.catalogue),
            LeaseControl(lambda: _records(core.follower), core.products, core.clock, core.follower.lease_cache),
        ),
        config.store.state_dir,
        stack,
    )
    return await serve_http(config, core, submit, uploads, workers, background, stack), workers


async def _records(follower: Follower) -> ChainStore:
    if follower.chain_store is None or follower.lease_cache.chain_view is None:
        raise Unavailable("The node has not read the leases from its database yet. Try again in a moment.")
    return follower.chain_store


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def _swept(ports: RetentionPorts) -> None:
    await apply_retention(ports)


def _folders(config: Config, core: Adapters) -> tuple[ResultStore, UploadStore]:
    """Where results and uploads lie."""
    store = config.store
    for name in ("results", "uploads"):
        (store.state_dir / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    room = UploadQuota(
        max_spender_bytes=store.uploads_mb_per_spender * MIB,
        max_total_bytes=store.uploads_mb * MIB,
        keep_seconds=store.keep_uploads_seconds,
    )
    shelf = ResultStore(store.state_dir / "results", store.max_results_mb * MIB, store.results_mb_per_spender * MIB)
    return shelf, UploadStore(core.database, core.clock, UploadFiles(store.state_dir / "uploads"), room)


def _deliveries(config: Config, core: Adapters, stack: AsyncExitStack) -> list[Loop]:
    loops = []
    if config.settlement.post_results:
        poster = factories.make_poster(config, core.follower, core.engine, core.contract, core.signer)
        loops.append(Loop("settle", lambda: deliver_commitments(core.database, poster, core.clock)))
    if (broker := factories.make_broker(config)) is not None:
        stack.push_async_callback(broker.close)
        loops.append(Loop("presence", broker.announce_online, idle=PRESENCE_SECONDS))
        loops.append(Loop("announce", lambda: deliver_events(core.database, broker, core.clock)))
    return loops
