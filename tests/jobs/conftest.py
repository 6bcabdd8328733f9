"""The routes of jobs over real HTTP and a real database; the sandbox is a stage, the chain a fake lease cache."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from pandacea.api.auth import AUTHENTICATOR, Authenticator
from pandacea.api.connection_guard import HttpLimits
from pandacea.api.node import NODE, NodeContext, Readiness
from pandacea.api.nonces import MemoryNonces
from pandacea.api.rate_limit import RateLimiter, StreamLimiter
from pandacea.api.routes import add_routes
from pandacea.api.server import HttpServer, Listener, create_app
from pandacea.domain.job import Job, JobState
from pandacea.domain.limits import Limits
from pandacea.domain.product import LiveOutput, Policy, Release, Rules
from pandacea.flows.execute import run_next_job
from pandacea.flows.privacy import PrivacyService
from pandacea.store.database_engine import DatabaseEngine
from pandacea_sdk.protocol.hashing import KeySigner
from pandacea_sdk.protocol.signing import SigningPolicy, sign_request
from tests.fakes import CHAIN_ID, EARNER, LEASE_ID, NOW, cached_lease, product
from tests.flows.conftest import World, make_world
from tests.jobs.stage import Stage

AUTHORITY = "node.example:8080"
EXECUTE = "/api/v1/privacy/execute"
SPENDER, OTHER = KeySigner("51" * 32), KeySigner("52" * 32)
NONCES = iter(f"{number:022d}" for number in range(10**6))
OPEN = Rules(policy=Policy.ANY_CODE, release=Release.AUTO, live_output=LiveOutput.FULL)


@dataclass
class TickingClock:
    """Real seconds from NOW on, and what a test adds."""

    began: float = field(default_factory=time.monotonic)
    added: float = 0.0

    def now(self) -> float:
        return NOW + self.added + time.monotonic() - self.began


@dataclass
class JobAnswer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))

    @property
    def code(self) -> str:
        return str(self.json["code"])


@dataclass
class Served:
    """A served world, and what sends signed requests to it."""

    world: World
    stage: Stage
    clock: TickingClock
    node: NodeContext
    server: HttpServer
    session: aiohttp.ClientSession

    def rules(self, **changes: Any) -> None:
        """The product's rules from now on."""
        path = next(iter(self.world.catalogue.product.assets.values())).path
        self.world.catalogue.product = product(path, rules=replace(OPEN, **changes))

    def lease(self, **changes: Any) -> None:
        """How the chain shows the Spender's lease from now on."""
        self.world.lease_cache.change_lease(cached_lease(**{"spender": SPENDER.address.lower(), "max_computations": 50, **changes}))

    def headers(self, method: str, path: str, body: bytes | None, signer: KeySigner, headers: dict[str, str]) -> dict[str, str]:
        created = int(self.clock.now())
        if body is not None and method == "POST":
            headers = {"Content-Type": "application/json", **headers}
        signed = sign_request(
            signer,
            method=method,
            authority=AUTHORITY,
            target=path,
            body=body,
            chain_id=CHAIN_ID,
            created=created,
            nonce=next(NONCES),
            headers=headers,
        )
        return {"Host": AUTHORITY, **headers, **signed}

    def request(self, method: str, path: str, body: Any = None, *, signer: KeySigner | None = SPENDER, **headers: str) -> Any:
        """An aiohttp request context; header names with `_` for `-`."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        plain = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Host": AUTHORITY, **plain} if signer is None else self.headers(method, path, raw, signer, plain)
        url = f"http://127.0.0.1:{self.server.port}{path}"
        return self.session.request(method, url, data=raw, headers=sent, skip_auto_headers=["Content-Type"])

    async def send(self, method: str, path: str, body: Any = None, **options: Any) -> JobAnswer:
        """Send a request and read its whole answer."""
        async with self.request(method, path, body, **options) as response:
            return JobAnswer(response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read())

    async def submit(self, code: str = "print(1)", **members: Any) -> str:
        """Submit a computation asynchronously; its id."""
        answer = await self.send("POST", EXECUTE, self.body(code, **members), Prefer="respond-async")
        assert answer.status == 202, answer.body
        return str(answer.json["computation_id"])

    def body(self, code: str = "print(1)", **members: Any) -> dict[str, Any]:
        """The body of an execute request."""
        return {"lease_id": LEASE_ID, "code": code, "inputs": [], **members}

    async def row(self, computation_id: str) -> Job:
        """A job as the database has it."""
        async with self.world.submit.database.read_session() as session:
            job = await session.jobs.find_job(computation_id)
        assert job is not None
        return job

    async def reaches(self, computation_id: str, state: JobState) -> Job:
        """Wait until a job's row is in a state."""
        async with asyncio.timeout(20):
            while True:
                job = await self.row(computation_id)
                if job.state is state:
                    return job
                await asyncio.sleep(0.01)


def results(computation_id: str, more: str = "") -> str:
    """The path of a computation."""
    return f"/api/v1/privacy/results/{computation_id}{more}"


@pytest.fixture
async def served(tmp_path: Path, database: DatabaseEngine) -> AsyncIterator[Served]:
    """One node: product with any code, released at once, all output live; one worker a running job, up to three."""
    plain = await make_world(tmp_path, database)
    stage, clock = Stage(), TickingClock()
    limits = Limits(time_seconds=60)
    privacy = PrivacyService(plain.lease_cache, plain.catalogue, stage, EARNER, clock)
    wake = asyncio.Event()
    submit = replace(plain.submit, privacy=privacy, clock=clock, limits=limits, wake_workers=wake.set)
    execute = replace(plain.execute, privacy=privacy, clock=clock, limits=limits)
    plain.uploads.clock = clock
    world = replace(
        plain,
        submit=submit,
        execute=execute,
        release=replace(plain.release, clock=clock),
        approve=replace(plain.approve, clock=clock),
    )
    app = create_app(HttpLimits(upload_bytes=1000))
    app[AUTHENTICATOR] = Authenticator(
        SigningPolicy(CHAIN_ID, frozenset({AUTHORITY})),
        clock,
        world.lease_cache,
        MemoryNonces(clock.now, skew=30),
        stranger_nonces=MemoryNonces(clock.now, skew=30),
        stranger_rate=RateLimiter(100, 100, time.monotonic),
    )
    node = NodeContext(
        earner=EARNER,
        database=submit.database,
        leases=world.lease_cache,
        catalogue=world.catalogue,
        submit=submit,
        chain_id=submit.chain_id,
        contract=submit.contract,
        privacy=submit.privacy,
        limits=submit.limits,
        results=submit.results,
        max_wait_seconds=submit.queue.max_wait_seconds,
        notifier=execute.notifier,
        clock=clock,
        streams=StreamLimiter(),
        uploads=world.uploads,
        approve=world.approve,
        well_known={},
        readiness=lambda: Readiness(ready=True, parts={}),
    )
    app[NODE] = node
    add_routes(app)
    server = HttpServer(app, Listener("127.0.0.1", 0, grace_seconds=0.5))
    await server.start()

    async def work() -> None:
        while True:
            if not await run_next_job(execute):
                wake.clear()
                await wake.wait()

    workers = [asyncio.create_task(work()) for _ in range(3)]
    async with aiohttp.ClientSession() as session:
        served = Served(world, stage, clock, node, server, session)
        served.rules()
        served.lease()
        yield served
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    await server.stop()
