"""One Spender asks for everything, all the time: another's paid computation still runs, and its result stays.

Seconds in `make test`; an hour with PANDACEA_TEST_SCALE at 10, as `make test-long` sets it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp

from pandacea.api.auth import AUTHENTICATOR
from pandacea.api.rate_limit import RateLimiter
from pandacea.domain.ids import Address, AssetId, LeaseId
from pandacea.domain.job import Mode
from pandacea.domain.limits import MIB, Limits
from pandacea.domain.outcome import Artifact, Outcome
from pandacea.domain.product import Mock
from pandacea.flows.retention import RetentionPorts, apply_retention
from tests.fakes import cached_lease
from tests.jobs.conftest import EXECUTE, OTHER, SPENDER, JobAnswer, Served, results
from tests.jobs.stage import Play

SCALE: Final = float(os.environ.get("PANDACEA_TEST_SCALE", "1"))
SECONDS: Final = 10.0 if SCALE < 10 else 3600.0
LEASE: Final = LeaseId("0x" + "2e" * 32)
PAUSE: Final = 0.25
"""Between two requests of one kind: so each kind reaches its own limits, and not only the rate of all together."""
PATIENCE: Final = 5.0
"""The neighbour's."""
ENDLESS: Final = 6.0
"""What an endless script takes here: longer than that."""
NUMBERS = count(1)
INPUTS = [{"asset_id": "a", "variable_name": "table"}]


class GreedySpender:
    """Everything that one Spender can ask for, over and over; what was answered is counted by status."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.answers: Counter[str] = Counter()
        self.stop = asyncio.Event()

    async def begins_with_endless_scripts(self) -> None:
        """One for each worker of the node."""
        for number in range(3):
            assert (
                await self._sends("POST", EXECUTE, self.served.body(f"# endless {number}"), Prefer="respond-async")
            ).status == 202

    async def forever(self, name: str, step: Callable[[], Awaitable[int]]) -> None:
        while not self.stop.is_set():
            with contextlib.suppress(aiohttp.ClientError):  # a connection that gave way is no answer, and no end of the attack
                self.answers[f"{name} {await step()}"] += 1
            await asyncio.sleep(PAUSE)

    async def runs(self) -> int:
        return (await self._sends("POST", EXECUTE, self._body(), Prefer="respond-async")).status

    async def waits(self) -> int:
        return (await self._sends("POST", EXECUTE, self._body(), Idempotency_Key="same")).status

    async def rehearses(self) -> int:
        return (await self._sends("POST", EXECUTE, self._body(mode="mock", inputs=INPUTS), Prefer="respond-async")).status

    async def cancels(self) -> int:
        answer = await self._sends("POST", EXECUTE, self._body(), Prefer="respond-async")
        if answer.status == 202:
            await self._sends("DELETE", results(answer.json["computation_id"]))
        return int(answer.status)

    async def uploads(self) -> int:
        data = b"%d" % next(NUMBERS)
        return (await self._sends("PUT", f"/api/v1/privacy/uploads/{hashlib.sha256(data).hexdigest()}", data)).status

    async def hands_in(self) -> int:
        body = {"product_id": "p", "code": f"print({next(NUMBERS)})", "inputs": INPUTS}
        return (await self._sends("POST", "/api/v1/privacy/code", body)).status

    async def announces(self) -> int:
        """A signed head whose body never comes."""
        headers = self.served.headers("POST", EXECUTE, bytes(MIB), SPENDER, {})
        reader, writer = await asyncio.open_connection("127.0.0.1", self.served.server.port)
        lines = [f"{name}: {value}" for name, value in {**headers, "Content-Length": str(MIB)}.items()]
        writer.write(("\r\n".join([f"POST {EXECUTE} HTTP/1.1", *lines]) + "\r\n\r\n").encode())
        with contextlib.suppress(TimeoutError, ConnectionError):
            await asyncio.wait_for(reader.read(1), 1)
        writer.close()
        return 0

    def _body(self, **members: Any) -> dict[str, Any]:
        return self.served.body(f"print({next(NUMBERS)})  #" + "x" * 50_000, **members)

    async def _sends(self, method: str, path: str, body: Any = None, **headers: str) -> JobAnswer:
        return await self.served.send(method, path, body, **headers)


def leaves_all_it_may(play: Play) -> None:
    """A run whose artifacts are as large as they may be, and holes."""
    limits, files = play.job.limits, []
    for place in range(2):
        size = min(limits.artifact_bytes, limits.artifacts_bytes // 2)
        with (play.job.results_dir / str(place)).open("wb") as file:
            file.truncate(size)
        files.append(Artifact(f"f{place}", play.job.results_dir / str(place), size, hashlib.sha256(b"").hexdigest()))
    play.ends(Outcome(None, "", b"", tuple(files), exit_status=0, code_started=True))


async def acts(served: Served, paid: str) -> None:
    """The stage's part: of the greedy Spender's scripts some never end, others leave all they may; the neighbour's leaves its model."""

    async def run(play: Play) -> None:
        if paid.encode() in play.job.code:
            play.ends(model=b"paid for")
            return
        await asyncio.sleep(ENDLESS if b"endless" in play.job.code else 0.1)
        if not play.end.done():  # it may have been cancelled meanwhile
            leaves_all_it_may(play)

    playing = set()
    while True:
        playing.add(asyncio.create_task(run(await served.stage.plays.get())))


async def keeps_house(served: Served) -> None:
    world = served.world
    ports = RetentionPorts(
        world.submit.database,
        served.clock,
        world.submit.results,
        world.submit.limits,
        world.uploads,
        world.release,
        keep_results_seconds=7 * 86_400.0,
    )
    while True:
        await asyncio.sleep(0.5)
        await apply_retention(ports)


async def pays(served: Served, marker: str) -> dict[str, Any]:
    """The neighbour's computation, whole; asked again while the node says when."""
    body = {**served.body(f"print(1)  # {marker} {next(NUMBERS)}"), "lease_id": LEASE}
    async with asyncio.timeout(30):
        while True:
            answer = await served.send("POST", EXECUTE, body, signer=OTHER)
            if answer.status == 200:
                return dict(answer.json)
            assert answer.status == 429, answer.body  # of its own rate, in a long run; never for want of room or of a place
            await asyncio.sleep(1)


async def test_the_neighbour_is_served_and_its_results_stay(served: Served, tmp_path: Path) -> None:
    """Runs, rehearsals, waits, cancellations, uploads, scripts and silent bodies together, at the rates of a real node."""
    prepare(served, tmp_path)
    greedy, marker, end = GreedySpender(served), "the neighbour's", time.monotonic() + SECONDS
    steps = [greedy.runs, greedy.waits, greedy.rehearses, greedy.cancels, greedy.uploads, greedy.hands_in, greedy.announces]
    await greedy.begins_with_endless_scripts()
    tasks = [asyncio.create_task(acts(served, marker)), asyncio.create_task(keeps_house(served))]
    attack = [asyncio.create_task(greedy.forever(step.__name__, step)) for step in steps for _ in range(2)]
    neighbour = aiohttp.ClientSession()
    theirs = replace(served, session=neighbour)
    done: list[dict[str, Any]] = []
    try:
        while time.monotonic() < end:
            began = time.monotonic()
            done.append(await pays(theirs, marker))
            assert time.monotonic() - began < PATIENCE, "behind a Spender who asks for everything"
            await asyncio.sleep(min(1.0, SECONDS / 10))
        for answer in done[:3] + done[-3:]:
            again = await theirs.send("GET", results(answer["computation_id"]), signer=OTHER)
            assert again.json["results"]["artifacts"] == {"model": "cGFpZCBmb3I="}
    finally:
        greedy.stop.set()
        for task in (*tasks, *attack):
            task.cancel()
        await asyncio.gather(*tasks, *attack, return_exceptions=True)
        await neighbour.close()
    assert len(done) >= 3
    refused = Counter(name.rpartition(" ")[2] for name in greedy.answers.elements())
    assert refused["429"] > 0, "the attack reached its limits"
    async with served.world.submit.database.read_session() as session:
        assert sum((await session.jobs.stored_bytes(Mode.LIVE)).values()) <= served.world.submit.results.max_bytes


def prepare(served: Served, folder: Path) -> None:
    """Two leases, mock rows, little room, two of three workers for one Spender, and the rates that `pandacea run` sets."""
    served.world.lease_cache.change_lease(cached_lease(lease_id=LEASE, spender=Address(OTHER.address), max_computations=10**6))
    table = folder / "mock.arrow"
    table.write_bytes(b"mock")
    product = served.world.catalogue.product
    asset = replace(product.assets[AssetId("a")], mock=Mock("0" * 64, folder / "mock.csv", table))
    served.world.catalogue.product = replace(product, assets={**product.assets, AssetId("a"): asset})
    largest = Limits().largest_result
    for name, size in (("max_bytes", 8 * largest), ("max_bytes_per_spender", 4 * largest)):
        object.__setattr__(served.world.submit.results, name, size)
    object.__setattr__(served.world.execute, "max_running_per_spender", 2)
    authenticator = served.server._app[AUTHENTICATOR]
    authenticator._spender_rate = RateLimiter(50, 200, time.monotonic)
