"""The server side of benchmarks/http.py, in a process of its own: `bare` (one aiohttp handler) or `node`.

`node` is the real thing from the socket to the database: edge, signatures, nonces in SQLite (synchronous=FULL), access, routes, jobs.
Two parts stand in: the lease book holds two leases in memory, and the sandbox runs nothing but a short burst of processor time.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from pandacea.api.auth import AUTHENTICATOR, Authenticator
from pandacea.api.edge_limits import EdgeLimits
from pandacea.api.node import NODE, Node, Readiness
from pandacea.api.nonces import GroupCommitNonces, MemoryNonces
from pandacea.api.routes import add_routes
from pandacea.api.server import Listener, Server, create_app
from pandacea.api.throttle import Rate, Streams
from pandacea.app.loops import Loop
from pandacea.catalogue.codecheck import ChildCodeChecker
from pandacea.domain.access import ChainStanding, KnownLease, Trust
from pandacea.domain.ids import Address, AssetId, BlockNumber, Hash32, LeaseId, ProductId, Timestamp, Wei
from pandacea.domain.lease import LeaseStatus
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Artifact, Outcome
from pandacea.domain.product import Asset, Policy, Product, Release, Rules
from pandacea.flows.execute import ExecutePorts, run_next
from pandacea.flows.ports import CodeStarted, SandboxEvent, SandboxIdentity, SandboxJob
from pandacea.flows.privacy import LeasedPrivacy
from pandacea.flows.seal import Sealer
from pandacea.flows.submit import Queue, SubmitPorts
from pandacea.flows.watch import Watch
from pandacea.store.books import SqlBooks
from pandacea.store.migrate import upgrade
from pandacea.store.products import SqlProductBook
from pandacea.store.session import Database
from pandacea_sdk.protocol.hashing import KeySigner, sha256_hex
from pandacea_sdk.protocol.signing import SigningPolicy

CHAIN_ID: Final = 31337
AUTHORITY: Final = "bench.example"
CONTRACT, PRODUCT_HASH, VERSION = Address("0x" + "c0" * 20), Hash32("0x" + "aa" * 32), Hash32("0x" + "bb" * 32)
EARNER: Final = KeySigner("ee" * 32)
REFUSED, WORKING = KeySigner("11" * 32), KeySigner("22" * 32)
"""Two Spenders: one's lease has expired, the other's allows a million computations."""
EXPIRED_LEASE, GOOD_LEASE = LeaseId("0x" + "1e" * 32), LeaseId("0x" + "2e" * 32)
BURST: Final = "import time; end = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"


class Clock:
    def now(self) -> float:
        return time.time()


class Book:
    """Two leases."""

    def __init__(self) -> None:
        good = KnownLease(
            lease_id=GOOD_LEASE,
            spender=Address(WORKING.address),
            earner=Address(EARNER.address),
            data_product_id=PRODUCT_HASH,
            expires_at=Timestamp(int(time.time()) + 86_400),
            max_computations=1_000_000,
            status=LeaseStatus.APPROVED,
            committed_count=0,
            approved_block=BlockNumber(1),
            in_dispute=False,
            resolved_for_spender=False,
            trust=Trust.SIGNED,
        )
        expired = replace(good, lease_id=EXPIRED_LEASE, spender=Address(REFUSED.address), expires_at=Timestamp(1))
        self._leases = {GOOD_LEASE: good, EXPIRED_LEASE: expired}
        self._spenders = {lease.spender for lease in self._leases.values()}

    def lease(self, lease_id: LeaseId) -> KnownLease | None:
        return self._leases.get(lease_id)

    def standing(self) -> ChainStanding:
        return ChainStanding(BlockNumber(10), Timestamp(int(time.time())), BlockNumber(10), distrust=None)

    def knows_spender(self, address: Address) -> bool:
        return address in self._spenders

    def on_change(self, callback: Callable[[LeaseId | None], None]) -> Callable[[], None]:
        return lambda: None


class OneProduct:
    def __init__(self, table: Path) -> None:
        asset = Asset(AssetId("a"), commitment="1" * 64, path=table, format="csv")
        rules = Rules(policy=Policy.ANY_CODE, release=Release.AUTO)
        document = {"name": "p", "data_type": "table", "keywords": [], "price_wei": "0"}
        self.product = Product(ProductId("p"), PRODUCT_HASH, VERSION, rules, Wei(0), {AssetId("a"): asset}, document, "0x")

    def by_hash(self, product_hash: Hash32) -> Product | None:
        return self.product if product_hash == PRODUCT_HASH else None

    def by_id(self, product_id: str) -> Product | None:
        return self.product if product_id == "p" else None

    def all(self) -> list[Product]:
        return [self.product]


class BurstSandbox:
    """Instead of a box: a process that burns `seconds` of processor time (none for 0), and one artifact of 10 KB."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def open(self) -> SandboxIdentity:
        return SandboxIdentity("benchmark", "sha256:" + "0" * 64, "0" * 64)

    async def run(self, job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        on_event(CodeStarted())
        if self._seconds:
            burst = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", BURST.format(seconds=self._seconds))
            await burst.wait()
        raw = os.urandom(10_000)
        (job.results / "0").write_bytes(raw)
        artifact = Artifact("model.pth", job.results / "0", len(raw), sha256_hex(raw))
        return Outcome(None, "", b"done\n", (artifact,), exit_status=0, code_started=True)

    async def close(self) -> None:
        """Nothing was opened."""


class LoopWatch:
    """How late a 5 ms timer comes at worst: how long the event loop was held by one thing."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.005
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, loop.time() - due)


async def bare() -> None:
    """One handler that reads the body and answers a little JSON."""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"ok": True})

    app = web.Application()
    app.router.add_post("/api/v1/privacy/execute", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _tell(runner.addresses[0][1])
    await asyncio.Event().wait()


async def node(job_seconds: float) -> None:
    """Put a node together as `app.serve` does."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pandacea-bench-")))
        database = await Database.open(f"sqlite+aiosqlite:///{folder / 'node.db'}")
        stack.push_async_callback(database.close)
        await upgrade(database)
        execute, submit, watch, workers = await _journeys(folder, database, job_seconds)
        limits = EdgeLimits(connections_per_peer=1024)
        app = create_app(limits)
        books = submit.books

        async def insert_many(rows: Sequence[tuple[str, str, int]]) -> Sequence[bool]:
            async with books.write() as work:
                fresh = await work.nonces.insert_many(rows)
                await work.commit()
                return fresh

        nonces, lag = GroupCommitNonces(insert_many), LoopWatch()
        app[AUTHENTICATOR] = Authenticator(
            SigningPolicy(CHAIN_ID, frozenset({AUTHORITY})),
            submit.clock,
            submit.book,
            nonces,
            stranger_nonces=MemoryNonces(time.time, 30),
            stranger_rate=Rate(1, 5, time.monotonic),
        )
        app[NODE] = Node(
            earner=Address(EARNER.address),
            books=books,
            book=submit.book,
            catalogue=submit.catalogue,
            submit=submit,
            watch=watch,
            clock=submit.clock,
            streams=Streams(),
            results_dir=execute.results_dir,
            well_known={"chain_id": CHAIN_ID},
            openapi=b"{}",
            readiness=lambda: Readiness(ready=True, parts={}),
        )
        add_routes(app)

        async def stats(_request: web.Request) -> web.Response:
            async with books.read() as view:
                live = await view.jobs.live()
            worst, lag.worst = lag.worst, 0.0
            return web.json_response({"rss": _rss(), "live": live, "loop_block_ms": worst * 1000})

        app.router.add_get("/stats", stats)
        server = Server(app, Listener(port=0, limits=limits))
        await server.start()
        tasks = [asyncio.create_task(work) for work in (nonces.run(), lag.run(), *(worker.run() for worker in workers))]
        _tell(server.port)
        await asyncio.gather(*tasks)


async def _journeys(folder: Path, database: Database, job_seconds: float) -> tuple[ExecutePorts, SubmitPorts, Watch, list[Loop]]:
    table = folder / "a.csv"
    table.write_text("x\n1\n")
    clock, book, catalogue, sandbox = Clock(), Book(), OneProduct(table), BurstSandbox(job_seconds)
    books, products, watch = SqlBooks(database), SqlProductBook(database), Watch()
    for asset in catalogue.product.assets.values():
        await products.add_asset("p", asset, digest=asset.commitment, key=b"k", size=4, now=clock.now())
    earner, limits = Address(EARNER.address), Limits()
    privacy = LeasedPrivacy(book, catalogue, sandbox, earner, clock)
    results = folder / "results"
    results.mkdir()
    execute = ExecutePorts(
        books=books,
        book=book,
        catalogue=catalogue,
        products=products,
        privacy=privacy,
        sealer=Sealer(earner, EARNER, await sandbox.open(), limits, 1, "benchmark"),
        clock=clock,
        limits=limits,
        threads=1,
        results_dir=results,
        post_results=False,
        ended=watch.ended,
        cancelled=watch.cancelled,
    )
    workers = [Loop("worker", lambda: run_next(execute))]
    submit = SubmitPorts(
        chain_id=CHAIN_ID,
        contract=CONTRACT,
        books=books,
        book=book,
        catalogue=catalogue,
        privacy=privacy,
        checker=ChildCodeChecker(),
        clock=clock,
        limits=limits,
        queue=Queue(100_000, 100_000, 3600),
        wake=workers[0].wake,
    )
    return execute, submit, watch, workers


def _rss() -> int:
    """Resident memory of this process in bytes."""
    fields: dict[str, Any] = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def _tell(port: int) -> None:
    print(json.dumps({"port": port}), flush=True)


if __name__ == "__main__":
    asyncio.run(bare() if sys.argv[1] == "bare" else node(float(sys.argv[2])))
