"""Kill -9 at any moment, under load: every job ends, none twice, none is lost, nothing is left behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import secrets
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from pandacea_sdk.protocol.execute_request import ComputationInput, ExecuteRequest
from tests.kill.rig import EXECUTE, KillRig, rig
from tests.prerequisites import free_port
from tests.sandbox.leftovers import control_groups, processes

SCALE = float(os.environ.get("PANDACEA_TEST_SCALE", "1"))
KILLS = max(3, int(100 * SCALE))
LIVE = ("pending", "running", "held")

SCRIPTS = (
    "print('quick')",
    "open('a.bin', 'wb').write(b'x' * 100_000)\nprint('kept')",
    "import time\nfor n in range(20):\n    print(n, flush=True)\n    pandacea_progress(n, 20)\n    time.sleep(0.05)",
    "import subprocess\nchildren = [subprocess.Popen(['sleep', '600']) for _ in range(5)]\nimport time\ntime.sleep(0.3)",
    "raise ValueError('mine')",
    "import time\ntime.sleep(0.2)\nopen('late', 'w').write('x')",
)
TABLE = (ComputationInput("table", "table"),)


@dataclass
class Load:
    """Spenders who do not stop: what they were promised, and what they saw."""

    rig: KillRig
    dice: random.Random
    accepted: dict[str, str] = field(default_factory=dict)
    """idempotency key -> computation id"""
    asked: dict[str, bytes] = field(default_factory=dict)
    """idempotency key -> body, of requests whose answer is not known"""
    results: dict[str, str] = field(default_factory=dict)
    """computation id -> result hash, as first seen"""
    cancelled: set[str] = field(default_factory=set)
    seen: Counter[str] = field(default_factory=Counter)

    async def submit(self) -> None:
        """Ask; what got no answer is asked again with its key, now or after the next start."""
        while True:
            if self.asked and (len(self.asked) > 8 or self.dice.random() < 0.5):
                key, body = self.dice.choice(list(self.asked.items()))
            else:
                key = secrets.token_hex(8)
                inputs = TABLE if self.dice.random() < 0.1 else ()
                body = ExecuteRequest(self.rig.lease_id, self.dice.choice(SCRIPTS), inputs).to_bytes()
                self.asked[key] = body
            with suppress(aiohttp.ClientError, TimeoutError):
                answer = await self.rig.send("POST", EXECUTE, body, Prefer="respond-async", Idempotency_Key=key)
                self.seen[f"submit {answer.status}"] += 1
                assert answer.status in {202, 429, 503, 401, 403}, answer.body
                if answer.status == 202:
                    computation_id = str(answer.json["computation_id"])
                    assert self.accepted.setdefault(key, computation_id) == computation_id, "one key, two computations"
                    self.asked.pop(key, None)
                elif answer.status == 429:
                    self.asked.pop(key, None)  # no: a key that had been taken would have been answered with its computation
                elif answer.status == 403:
                    assert answer.json["code"] == "unknown-spender"  # a node that has just started
            await asyncio.sleep(self.dice.uniform(0.02, 0.15))

    async def read(self) -> None:
        """Poll, follow events, cancel."""
        while True:
            await asyncio.sleep(self.dice.uniform(0.02, 0.1))
            if not self.accepted:
                continue
            computation_id = self.dice.choice(list(self.accepted.values())[-30:])
            path = f"/api/v1/privacy/results/{computation_id}"
            with suppress(aiohttp.ClientError, TimeoutError):
                move = self.dice.random()
                if move < 0.15:
                    answer = await self.rig.send("DELETE", path)
                    if answer.status == 204:
                        self.cancelled.add(computation_id)
                elif move < 0.5:
                    answer = await asyncio.wait_for(self.rig.send("GET", path + "/events"), self.dice.uniform(0.1, 1.0))
                else:
                    answer = await self.rig.send("GET", path)
                    if answer.status == 200:
                        self.check_result_stays(answer.json)
                self.seen[f"read {answer.status}"] += 1

    async def upload(self) -> None:
        """Hand in bytes, over and over."""
        while True:
            data = self.dice.randbytes(self.dice.choice((10, 200_000)))
            path = f"/api/v1/privacy/uploads/{hashlib.sha256(data).hexdigest()}"
            with suppress(aiohttp.ClientError, TimeoutError):
                self.seen[f"upload {(await self.rig.send('PUT', path, data)).status}"] += 1
            await asyncio.sleep(self.dice.uniform(0.1, 0.4))

    def check_result_stays(self, answer: dict[str, object]) -> None:
        """A result, once seen, is the result for ever."""
        if "result_hash" in answer:
            computation_id, digest = str(answer["computation_id"]), str(answer["result_hash"])
            assert self.results.setdefault(computation_id, digest) == digest, f"{computation_id} has two results"


@pytest.mark.timeout(1800)
async def test_a_killed_node_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """At least a hundred kills at random moments, some while the node is starting; then the database is checked."""
    dice = random.Random(secrets.randbits(32))
    async with rig(tmp_path, mqtt={"host": "127.0.0.1", "port": free_port()}) as node:
        load = Load(node, dice)
        await node.start()
        tasks = [asyncio.create_task(work()) for work in (load.submit, load.submit, load.read, load.read, load.upload)]
        kills = 0
        while kills < KILLS:
            assert await node.kill() == -signal.SIGKILL
            kills += 1
            while kills < KILLS and dice.random() < 0.6:
                await killed_while_starting(node, dice)
                kills += 1
            began = time.time()
            await node.start()
            old = node.rows(f"select computation_id from job where state = 'running' and started_at < {began}")
            assert not old, "a job of a killed node still reads as running"
            await asyncio.sleep(dice.uniform(0, 0.8))
            for task in tasks:
                if task.done():
                    task.result()
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        for problem in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(problem, asyncio.CancelledError), problem
        await everything_ends(node, load)
        assert await node.kill(signal.SIGTERM) == 0, node.log()
        the_books_are_right(node, load)
        nothing_is_left(node)
        sys.stderr.write(f"{KILLS} kills, {len(load.accepted)} jobs, {len(load.results)} results seen, {dict(load.seen)}\n")


async def killed_while_starting(node: KillRig, dice: random.Random) -> None:
    """Anywhere between the first line and the first requests: while sandboxes are tested, while jobs are recovered."""
    await node.launch()
    await asyncio.sleep(dice.uniform(0, 2.5))
    assert await node.kill() == -signal.SIGKILL


async def everything_ends(node: KillRig, load: Load) -> None:
    """Left alone, the node brings every job to its end; what got no answer is asked once more."""
    for key, body in list(load.asked.items()):
        answer = await node.send("POST", EXECUTE, body, Prefer="respond-async", Idempotency_Key=key)
        while answer.status == 429:
            await asyncio.sleep(0.2)
            answer = await node.send("POST", EXECUTE, body, Prefer="respond-async", Idempotency_Key=key)
        assert answer.status == 202, answer.body
        load.accepted[key] = answer.json["computation_id"]
    await node.until(lambda: not node.rows("select 1 from job where state in ('pending', 'running', 'held')"), seconds=90)
    for computation_id in load.accepted.values():
        load.check_result_stays(await node.status(computation_id))


def the_books_are_right(node: KillRig, load: Load) -> None:
    """Each promise was kept, each job ended once, and each costs what its end says."""
    with sqlite3.connect(node.state / "pandacea.db") as database:
        database.row_factory = sqlite3.Row
        jobs = {row["computation_id"]: row for row in database.execute("select * from job")}
        keys = [row["key"] for row in database.execute("select key from outbox where channel = 'mqtt'")]
    assert set(load.accepted.values()) <= set(jobs), "a job that was accepted is lost"
    assert len(jobs) == len(load.accepted), "a job nobody was told of"
    endings = Counter(key.split(":")[1] for key in keys if key.split(":")[2] in {"completed", "failed", "cancelled"})
    assert endings == Counter(dict.fromkeys(jobs, 1)), "a job ended twice, or was not told of"
    for computation_id, job in jobs.items():
        where = f"{computation_id}: {job['state']} {job['failure']} {job['charge']}"
        assert job["state"] in {"completed", "failed", "cancelled"}, where
        assert (job["receipt"] != "null") == (job["charge"] in {"charged", "allowance"}), where
        if job["state"] == "completed":
            assert (job["failure"], job["charge"]) == (None, "charged"), where
        if job["failure"] == "interrupted":
            assert job["charge"] == ("charged" if job["live_at"] is not None else "returned"), where
        if job["failure"] == "script-error":
            assert job["charge"] in {"charged", "allowance"}, where
        if job["started_at"] is None:
            assert (job["state"], job["charge"]) == ("cancelled", "returned"), where
    assert sum(job["charge"] == "allowance" for job in jobs.values()) <= 5
    for computation_id in load.cancelled:
        assert jobs[computation_id]["state"] == "cancelled", "204 was a promise"
    for computation_id, digest in load.results.items():
        assert jobs[computation_id]["result_hash"] == digest


def nothing_is_left(node: KillRig) -> None:
    """No process, no control group, no folder without its row."""
    with sqlite3.connect(node.state / "pandacea.db") as database:
        kept = {row[0] for row in database.execute("select distinct computation_id from job_artifact")}
        uploads = {(row[0], row[1]) for row in database.execute("select spender, sha256 from upload")}
    assert {path.name for path in (node.state / "results").iterdir()} == kept
    assert {(path.parent.name, path.name) for path in (node.state / "uploads").glob("*/*")} == uploads
    assert processes(node.state) == {}
    instance = hashlib.sha256(str(node.state.resolve()).encode()).hexdigest()[:16]
    assert control_groups(instance) == []
    assert not (node.state / "desk.sock").exists()


async def test_a_cancelled_script_is_dead_within_two_seconds(tmp_path: Path) -> None:
    """Its guest and every process it started."""
    async with rig(tmp_path) as node:
        await node.start()
        code = "import subprocess, time\nchildren = [subprocess.Popen(['sleep', '600']) for _ in range(3)]\ntime.sleep(600)"
        answer = await node.submit(code)
        computation_id = answer.json["computation_id"]
        await node.until(lambda: len(processes(node.state)) >= 6)  # node, bubblewrap, its first process, script, children
        cancelled = await node.send("DELETE", f"/api/v1/privacy/results/{computation_id}")
        asked = time.monotonic()
        assert cancelled.status == 204
        while alive := {pid: line for pid, line in processes(node.state).items() if pid != node.pid}:
            assert time.monotonic() - asked < 2, alive
            await asyncio.sleep(0.01)
        status = await node.status(computation_id, "?wait=5")
        assert status["status"] == "cancelled"


async def test_a_stopping_node_lets_jobs_end_within_its_grace(tmp_path: Path) -> None:
    """SIGTERM: what runs may end, what waits stays for the next start, what takes too long ends as interrupted and uncharged."""
    async with rig(tmp_path, server={"grace_seconds": 3}, privacy={"workers": 3}) as node:  # of which one Spender has two
        await node.start()
        long = (await node.submit("import time\ntime.sleep(600)")).json["computation_id"]
        short = (await node.submit("import time\ntime.sleep(1)\nprint('done')")).json["computation_id"]
        await node.until(lambda: len(node.rows("select 1 from job where state = 'running'")) == 2)
        waiting = (await node.submit("print('later')")).json["computation_id"]
        asked = time.monotonic()
        assert await node.kill(signal.SIGTERM) == 0
        assert time.monotonic() - asked < 6
        ends = dict(node.rows("select computation_id, state || ' ' || coalesce(failure, '') || ' ' || charge from job"))
        assert ends == {short: "completed  charged", long: "failed interrupted returned", waiting: "pending  reserved"}
        nothing_is_left_running(node)
        await node.start()
        assert (await node.status(waiting, "?wait=20"))["results"]["output"] == "later\n"


def nothing_is_left_running(node: KillRig) -> None:
    """No sandbox outlives the node."""
    assert processes(node.state) == {}


async def test_the_operator_decides_while_the_node_runs_and_while_it_does_not(tmp_path: Path) -> None:
    """`pandacea results` and `pandacea code` on a running node's database, and on a stopped one's."""
    async with rig(tmp_path, rules={"release": "hold"}, store={"max_results_mb": 10_000}) as node:
        await node.start()
        code = "print('Ada \\x1b[2J is 37')\nopen('w.bin', 'wb').write(b'1234')"
        first, second = [(await node.submit(code)).json["computation_id"] for _ in range(2)]
        await node.until(lambda: len(node.rows("select 1 from job where state = 'held'")) == 2)
        status, text = await node.command("results", "list")
        assert status == 0
        assert first in text
        assert second in text
        status, text = await node.command("results", "show", first)
        assert status == 0
        assert "Ada \\x1b[2J is 37" in text
        assert "\x1b" not in text
        assert "w.bin" in text
        assert (await node.status(first))["status"] == "running"
        status, text = await node.command("results", "release", first)
        assert status == 1
        assert f"Look at it first: `pandacea results show {first}`" in text
        seen = json.loads((await node.command("results", "show", first, "--json"))[1])["seen"]
        assert await node.command("results", "release", first, "--seen", seen) == (0, f"{first} is completed now.\n")
        released = await node.status(first)
        assert released["results"]["artifacts"] == {"w.bin": "MTIzNA=="}
        status, text = await node.command("results", "release", first, "--seen", seen)
        assert status == 1
        assert "not held" in text
        assert await node.kill(signal.SIGTERM) == 0
        assert await node.command("results", "refuse", second, "--yes", "--reason", "names one person") == (
            0,
            f"{second} is failed now.\n",
        )
        await node.start()
        refused = await node.status(second)
        assert refused["status"] == "failed"
        assert "names one person" in refused["reason"]
        handed = json.dumps({"product_id": "p", "code": "exec(params['f'])", "inputs": []}).encode()
        code_id = (await node.send("POST", "/api/v1/privacy/code", handed)).json["code_id"]
        status, text = await node.command("code", "list")
        assert code_id in text
        status, text = await node.command("code", "show", code_id)
        assert "this can run another program" in text
        assert await node.command("code", "reject", code_id, "--reason", "no exec") == (0, f"{code_id} is rejected now.\n")
        answer = await node.send("GET", f"/api/v1/privacy/code/{code_id}")
        assert (answer.json["status"], answer.json["reason"]) == ("rejected", "no exec")


async def test_a_script_is_rehearsed_on_mock_rows_in_the_same_box(tmp_path: Path) -> None:
    """On a product with every door shut, in one request: ten mock rows where the leased table has fifty, and nothing is used."""
    async with rig(tmp_path, rules={"policy": "approved-code", "release": "hold", "live_output": "none"}) as node:
        await node.start()
        request = ExecuteRequest(node.lease_id, "print(len(table))\nraise ValueError('shown')", TABLE, mode="mock")
        answer = await node.send("POST", EXECUTE, request.to_bytes())
        assert answer.status == 200, answer.body
        assert answer.json["results"]["output"].startswith("10\n")
        assert "ValueError: shown" in answer.json["results"]["output"]
        assert answer.json["mode"] == "mock"
        lease = (await node.send("GET", f"/api/v1/leases/{node.lease_id}")).json
        assert (lease["used"], lease["reserved"], lease["failed_runs"]) == (0, 0, 0)
