"""The server side of benchmarks/api.py, in a process of its own: `bare` (one aiohttp handler) or `node SECONDS`.

`node` is the node from the socket to the database: connection guard, signatures, nonces in SQLite (synchronous=FULL), access, routes,
jobs. Two parts are faked, as in the tests: leases are kept in memory, and the sandbox burns SECONDS of processor time in a process of
its own and leaves one artifact of 10 KB.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from aiohttp import web

from pandacea.api.connection_guard import HttpLimits
from pandacea.app.tuning import tune_interpreter
from pandacea.domain.ids import Address, LeaseId, Timestamp
from pandacea.domain.outcome import Artifact, Outcome
from pandacea.flows.ports import CodeStarted, SandboxEvent, SandboxJob
from pandacea_sdk.protocol.hashing import KeySigner, sha256_hex
from tests.api.served import AUTHORITY, SPENDER, assemble
from tests.fakes import CHAIN_ID, LEASE_ID, cached_lease
from tests.flows.conftest import World

WORKING, GOOD_LEASE = SPENDER, LEASE_ID
REFUSED, EXPIRED_LEASE = KeySigner("22" * 32), LeaseId("0x" + "2e" * 32)
"""Two Spenders: one's lease allows a million computations, the other's has expired."""
BURST: Final = "import time; end = time.process_time() + {seconds}\nwhile time.process_time() < end: pass"


class LoopLagProbe:
    """Measures how late a 5 ms timer fires at worst: how long one callback blocked the event loop."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def run(self) -> None:
        """Measure repeatedly until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.005
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, loop.time() - due)


async def bare() -> None:
    """Serve one handler that reads the body and answers a little JSON."""

    async def handler(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({"ok": True})

    app = web.Application()
    app.router.add_post("/api/v1/privacy/execute", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _print_port(runner.addresses[0][1])
    await asyncio.Event().wait()


async def node(job_seconds: float) -> None:
    """Serve the node's HTTP side, its flows and its database."""
    lag = LoopLagProbe()

    async def run(job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        on_event(CodeStarted())
        if job_seconds:
            burst = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", BURST.format(seconds=job_seconds))
            await burst.wait()
        raw = os.urandom(10_000)
        (job.results_dir / "0").write_bytes(raw)
        artifact = Artifact("model.pth", job.results_dir / "0", len(raw), sha256_hex(raw))
        return Outcome(None, "", b"done\n", (artifact,), exit_status=0, code_started=True)

    def prepare(world: World, app: web.Application) -> None:
        world.sandbox.run_job = run  # type: ignore[method-assign]  # the fake's own run ends at once
        expired = cached_lease(lease_id=EXPIRED_LEASE, spender=Address(REFUSED.address), expires_at=Timestamp(1))
        world.lease_cache.leases[EXPIRED_LEASE] = expired

        async def stats(_request: web.Request) -> web.Response:
            async with world.submit.database.read_session() as view:
                live = await view.jobs.count_queued()
            worst, lag.worst = lag.worst, 0.0
            return web.json_response({"rss": _rss(), "live": live, "loop_block_ms": worst * 1000})

        app.router.add_get("/stats", stats)

    with tempfile.TemporaryDirectory(prefix="pandacea-bench-") as folder:
        async with AsyncExitStack() as stack:
            served = await assemble(Path(folder), stack, HttpLimits(connections_per_peer=1024, requests_per_spender=1024), prepare)
            tune_interpreter()
            _print_port(served.port)
            await lag.run()


def _rss() -> int:
    """Read the resident memory of this process, in bytes."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def _print_port(port: int) -> None:
    print(json.dumps({"port": port}), flush=True)


__all__ = ["AUTHORITY", "CHAIN_ID", "EXPIRED_LEASE", "GOOD_LEASE", "REFUSED", "WORKING"]

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(bare() if sys.argv[1] == "bare" else node(float(sys.argv[2])))
