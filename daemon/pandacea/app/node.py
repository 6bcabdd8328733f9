"""`pandacea run`: start the node from a configuration, serve, and stop in reverse order."""

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
from pandacea.app.background import supervise_task
from pandacea.app.control.leases import LeaseControl
from pandacea.app.control.products import ProductControl
from pandacea.app.control.replays import ReplayControl
from pandacea.app.control.server import ControlServer, serve_control_socket
from pandacea.app.http_api import serve_http
from pandacea.app.metrics import collect_metrics
from pandacea.app.settlement import SettlementWatch
from pandacea.app.startup import Adapters, open_adapters
from pandacea.app.tuning import tune_interpreter
from pandacea.app.workers import Workers, count_workers, max_running_per_spender
from pandacea.chain.follower import Follower
from pandacea.chain.sending.finalized_leases import FollowedLeases
from pandacea.chain.sending.sender import ChainSender
from pandacea.codecheck.check import ChildCodeChecker
from pandacea.config import Config
from pandacea.domain.chain_view import ChainView
from pandacea.domain.ids import Address
from pandacea.domain.limits import MIB
from pandacea.errors import Unavailable
from pandacea.files.generation import GenerationFile
from pandacea.files.results import ResultStore
from pandacea.files.upload_files import UploadFiles
from pandacea.flows.accept_job import QueueLimits, SubmitPorts
from pandacea.flows.execute import ExecutePorts, run_next_job
from pandacea.flows.finish import recover_jobs
from pandacea.flows.following.chain_store import ChainStore
from pandacea.flows.outbox import Backlog, deliver_events, deliver_webhooks
from pandacea.flows.privacy import PrivacyService
from pandacea.flows.replay import ReplayPorts
from pandacea.flows.restore import RestorePorts, begin_generation
from pandacea.flows.retention import RetentionPorts, apply_retention
from pandacea.flows.settlement.approve_leases import ApprovePorts, approve_requested
from pandacea.flows.settlement.close_leases import ClosePorts, close_leases
from pandacea.flows.settlement.commit_results import CommitPorts, deliver_commitments
from pandacea.flows.sign_result import ResultSigner
from pandacea.flows.unit_of_work import Channel
from pandacea.flows.uploads import UploadQuota, UploadStore
from pandacea.store.sent_transactions import SqlSentTransactionStore
from pandacea.tasks import Loop, TaskSupervisor
from pandacea.telemetry.metrics import MetricsServer
from pandacea.telemetry.notify import ServiceManager
from pandacea_sdk.protocol.signing import CLOCK_SKEW_SECONDS

log = structlog.get_logger(__name__)

RETENTION_SECONDS: Final = 60.0
"""Seconds between two passes of retention."""
RESEND_SECONDS: Final = 15.0
"""Seconds between two looks at the transactions that are not final."""
OBSTACLE_SECONDS: Final = 600.0
"""Seconds between two questions whether the node can settle at all."""
CLOSE_SECONDS: Final = 60.0
"""Seconds between two looks for leases that can be executed or finalized."""
PRESENCE_SECONDS: Final = 30.0
"""Seconds between two `online` messages over MQTT."""


async def serve(config: Config, manager: ServiceManager) -> None:
    """Run the node until SIGINT or SIGTERM.

    Raises:
        BadConfig, Broken: something must be corrected before the node can start; the text says what.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with AsyncExitStack() as stack:
        supervisor = TaskSupervisor()
        server, workers = await _start(config, supervisor, stack)
        supervise_task(supervisor, manager.ping_watchdog(), "watchdog", stack)
        tune_interpreter()
        manager.notify("READY=1")
        log.info("node.serving", host=config.server.host, port=server.port, version=__version__)
        await _wait_for_stop(stop, supervisor)
        manager.notify("STOPPING=1")
        log.info("node.stopping", grace_seconds=config.server.grace_seconds)
        workers.notifier.stop_waiting()
        await asyncio.gather(server.stop(), workers.drain(config.server.grace_seconds))
    log.info("node.stopped")


async def _wait_for_stop(stop: asyncio.Event, supervisor: TaskSupervisor) -> None:
    """Wait for a signal. A background task that ends by itself is a defect: its exception ends the node."""
    waiting = asyncio.create_task(stop.wait(), name="signal")
    ending = asyncio.create_task(supervisor.wait_for_end(), name="any-end")
    try:
        await asyncio.wait([waiting, ending], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() or waiting.cancelled():
            await ending
    finally:
        waiting.cancel()
        ending.cancel()
        await asyncio.gather(waiting, ending, return_exceptions=True)


async def _start(config: Config, supervisor: TaskSupervisor, stack: AsyncExitStack) -> tuple[HttpServer, Workers]:
    adapters = await open_adapters(config, supervisor, stack)
    results, uploads = _make_stores(config, adapters)
    privacy = PrivacyService(
        adapters.follower.lease_cache, adapters.catalogue, adapters.sandbox, Address(config.earner.address), adapters.clock
    )
    number = count_workers(config.privacy, processors=len(os.sched_getaffinity(0)), memory_bytes=_memory_bytes())
    log.info("node.workers", number=number, of_one_spender=max_running_per_spender(number))
    workers = Workers(number, adapters.notifier)
    execute = _make_execute_ports(config, adapters, results, uploads, privacy, workers)
    restore = RestorePorts(adapters.database, adapters.clock, execute.generation_file, CLOCK_SKEW_SECONDS)
    requests_since = await begin_generation(restore)
    await recover_jobs(execute)
    await uploads.remove_unknown()
    workers.set_step(lambda mode: run_next_job(execute, (mode,)))
    submit = _make_submit_ports(config, adapters, results, privacy, workers)
    release = factories.make_release_ports(config, adapters.database, adapters.notifier)
    retention = RetentionPorts(
        adapters.database,
        adapters.clock,
        results,
        config.privacy.limits.to_limits(),
        uploads,
        release,
        keep_results_seconds=config.store.keep_results_seconds,
        keep_scripts_seconds=config.store.keep_scripts_seconds,
    )
    poster = factories.make_poster(config, adapters.follower, adapters.engine, adapters.contract, adapters.signer)
    watch = SettlementWatch(adapters, poster, Address(config.earner.address), factories.posting_of(config))
    backlogs: list[Backlog] = []
    loops = [
        *workers.loops,
        *_make_settlement_loops(config, adapters, poster, watch),
        *_make_approval_loops(config, adapters, poster),
        *_make_event_loops(config, adapters, stack, backlogs),
        Loop("housekeeping", lambda: _apply_retention(retention), idle=RETENTION_SECONDS),
    ]
    supervise_task(supervisor, adapters.engine.wait_until_superseded(), "database", stack)
    for loop in loops:
        supervise_task(supervisor, loop.run(), loop.name, stack)
    if config.telemetry.metrics_port is not None:
        adapters.metrics.add_source(lambda: collect_metrics(adapters.follower, watch.report, backlogs, config.store.state_dir))
        metrics_server = MetricsServer(config.telemetry.metrics_port, adapters.metrics)
        await metrics_server.start()
        stack.push_async_callback(metrics_server.stop)
    control = ControlServer(
        release,
        adapters.clock,
        ProductControl(adapters.products, config.privacy.data_dir, adapters.catalogue),
        LeaseControl(
            lambda: _open_chain_store(adapters.follower),
            adapters.products,
            adapters.clock,
            adapters.follower.lease_cache,
            adapters.follower.reread_leases,
            adapters.follower.lease_cache.list_contested,
            poster,
            own_key=poster.address == config.earner.address,
        ),
        ReplayControl(_make_replay_ports(adapters, results, uploads)),
    )
    await serve_control_socket(control, config.store.state_dir, stack)
    return await serve_http(config, adapters, submit, uploads, workers, watch, supervisor, stack, requests_since), workers


def _make_execute_ports(
    config: Config, adapters: Adapters, results: ResultStore, uploads: UploadStore, privacy: PrivacyService, workers: Workers
) -> ExecutePorts:
    limits, threads = config.privacy.limits.to_limits(), config.privacy.threads
    return ExecutePorts(
        database=adapters.database,
        leases=adapters.follower.lease_cache,
        catalogue=adapters.catalogue,
        products=adapters.products,
        privacy=privacy,
        signer=ResultSigner(Address(config.earner.address), adapters.signer, adapters.identity, limits, threads, __version__),
        clock=adapters.clock,
        limits=limits,
        threads=threads,
        results=results,
        upload_files=uploads.files,
        notifier=adapters.notifier,
        generation_file=GenerationFile(config.store.state_dir),
        max_running_per_spender=max_running_per_spender(workers.number),
        check_lease=adapters.follower.check_before_run,
        is_stopping=lambda: workers.stopping,
        observe_phase=adapters.metrics.observe_job,
    )


def _make_replay_ports(adapters: Adapters, results: ResultStore, uploads: UploadStore) -> ReplayPorts:
    return ReplayPorts(
        database=adapters.database,
        products=adapters.products,
        sandbox=adapters.sandbox,
        identity=adapters.identity,
        upload_files=uploads.files,
        results=results,
        clock=adapters.clock,
    )


def _make_submit_ports(
    config: Config, adapters: Adapters, results: ResultStore, privacy: PrivacyService, workers: Workers
) -> SubmitPorts:
    section = config.privacy
    return SubmitPorts(
        chain_id=adapters.chain_id,
        contract=adapters.contract,
        database=adapters.database,
        leases=adapters.follower.lease_cache,
        catalogue=adapters.catalogue,
        privacy=privacy,
        checker=ChildCodeChecker(frozenset(section.refused_imports), frozenset(adapters.identity.modules) or None),
        clock=adapters.clock,
        limits=section.limits.to_limits(),
        queue=QueueLimits(section.queue_per_spender, section.queue_total, section.queue_seconds),
        wake_workers=workers.wake,
        results=results,
    )


async def _open_chain_store(follower: Follower) -> ChainStore:
    if follower.chain_store is None or follower.lease_cache.chain_view is None:
        raise Unavailable("The node has not read the leases from its database yet. Try again in a moment.")
    return follower.chain_store


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


async def _apply_retention(ports: RetentionPorts) -> None:
    """Drop the count of `apply_retention`: a number would tell the loop that there is more to do at once."""
    await apply_retention(ports)


async def _resend(poster: ChainSender) -> None:
    """Drop the count of `resend_undone`: a number would tell the loop that there is more to do at once."""
    await poster.resend_undone()


def _make_stores(config: Config, adapters: Adapters) -> tuple[ResultStore, UploadStore]:
    store = config.store
    for name in ("results", "uploads"):
        (store.state_dir / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    quota = UploadQuota(
        max_bytes=store.upload_mb * MIB,
        max_spender_bytes=store.uploads_mb_per_spender * MIB,
        max_total_bytes=store.uploads_mb * MIB,
        keep_seconds=store.keep_uploads_seconds,
    )
    results = ResultStore(store.state_dir / "results", store.max_results_mb * MIB, store.results_mb_per_spender * MIB)
    return results, UploadStore(adapters.database, adapters.clock, UploadFiles(store.state_dir / "uploads"), quota)


def _make_settlement_loops(config: Config, adapters: Adapters, poster: ChainSender, watch: SettlementWatch) -> list[Loop]:
    chain = FollowedLeases(adapters.follower)
    commit = CommitPorts(adapters.database, poster, chain, adapters.clock, factories.posting_of(config))
    close = ClosePorts(adapters.database, poster, chain, commit.posting, Address(config.earner.address), poster.address)
    return [
        Loop("settle", lambda: deliver_commitments(commit)),
        Loop("resend", lambda: _resend(poster), idle=RESEND_SECONDS, retry=RESEND_SECONDS),
        Loop("close", lambda: close_leases(close), idle=CLOSE_SECONDS, retry=CLOSE_SECONDS),
        Loop("settlement-report", watch.look_at_backlog, idle=RESEND_SECONDS, retry=RESEND_SECONDS),
        Loop("lease-requests", watch.look_for_requests, idle=RESEND_SECONDS, retry=RESEND_SECONDS),
        Loop("settlement-check", watch.look_for_obstacles, idle=OBSTACLE_SECONDS, retry=RESEND_SECONDS, log_level="info"),
    ]


def _make_approval_loops(config: Config, adapters: Adapters, poster: ChainSender) -> list[Loop]:
    policy = factories.approval_policy_of(config)
    if policy is None:
        return []

    def read_chain() -> tuple[ChainStore, ChainView]:
        store, view = adapters.follower.chain_store, adapters.follower.lease_cache.chain_view
        if store is None or view is None:
            raise Unavailable("The node has not read the chain yet.")
        return store, view

    sent = SqlSentTransactionStore(adapters.engine)
    ports = ApprovePorts(adapters.database, read_chain, sent, poster, adapters.catalogue, adapters.clock, policy)
    return [Loop("lease-approvals", lambda: approve_requested(ports), idle=RESEND_SECONDS, retry=RESEND_SECONDS)]


def _make_event_loops(config: Config, adapters: Adapters, stack: AsyncExitStack, backlogs: list[Backlog]) -> list[Loop]:
    """Make the loops that tell events; what waits for each channel is kept in `backlogs`."""
    loops = []
    if (publisher := factories.make_publisher(config)) is not None:
        stack.push_async_callback(publisher.close)
        mqtt = Backlog(Channel.MQTT, config.mqtt.backlog)
        backlogs.append(mqtt)
        loops.append(Loop("presence", publisher.announce_online, idle=PRESENCE_SECONDS))
        loops.append(Loop("announce", lambda: deliver_events(adapters.database, publisher, adapters.clock, mqtt)))
    if (sender := factories.make_webhook_sender(config)) is not None:
        webhook = Backlog(Channel.WEBHOOK, config.webhooks.backlog)
        backlogs.append(webhook)
        loops.append(Loop("webhook", lambda: deliver_webhooks(adapters.database, sender, adapters.clock, webhook)))
    return loops
