"""No part of a node dies unnoticed: each background task of a really started node is killed in turn, without a service manager."""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import aiohttp
import pytest

from pandacea.app.node import serve
from pandacea.config import load_config
from pandacea.devchain import DevChain
from pandacea.tasks import RestartedTask, TaskEnded, TaskSupervisor, run_until_one_ends
from pandacea.telemetry.notify import ServiceManager
from pandacea_sdk.chain import deploy
from tests.kill.rig import ENVIRONMENT, _write
from tests.prerequisites import ROOT, free_port, skip_or_fail

ENDING = (
    "follower",
    "chain-follow",
    "chain-proof-queue",
    "chain-spender-accounts",
    "chain-cross-check",
    "chain-reread",
    "chain-backfill-check",
    "chain-unexplained-blocks",
    "chain-scan",
    "chain-lease-states",
    "database",
    "nonces",
    "worker-0",
    "worker-1",
    "worker-rehearsals",
    "settle",
    "resend",
    "close",
    "settlement-report",
    "lease-requests",
    "settlement-check",
    "presence",
    "announce",
    "webhook",
    "housekeeping",
    "watchdog",
)
"""Tasks whose end ends the node; `chain-v0-disputes`, `chain-new-heads` (a WebSocket) and `tls` are kept like them."""
RESTARTED = ("sandbox-pool", "edge")
"""Tasks that are started again."""
NO_PARTS = {"node", "signal", "any-end"}
"""The node itself, and what waits for its end."""


class NodeTask:
    """`serve` as a task of this process."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.serving: asyncio.Task[None]

    def parts(self) -> dict[str, asyncio.Task[object]]:
        """The node's named tasks; those of libraries have numbers for names."""
        tasks = {task.get_name(): task for task in asyncio.all_tasks()}
        return {name: task for name, task in tasks.items() if not name.startswith("Task-") and name not in NO_PARTS}

    async def ready(self) -> bool:
        """Whether GET /readyz says 200."""
        try:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[NodeTask]:
    """A node with every kind of loop, its broker, webhook and pool included; nobody listens where these should be."""
    async with started(tmp_path) as built:
        yield built


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[NodeTask]:
    if not (ENVIRONMENT / "bin" / "python").exists():
        skip_or_fail(f"no sandbox environment in {ENVIRONMENT}; run: make setup")
    async with DevChain(0) as chain:
        deployer, earner, _, _, arbiter = chain.accounts[:5]
        record = await deploy(chain.url, deployer.private_key, arbiter=arbiter.address)
        record.write(folder / "deployment.json")
        built = NodeTask(free_port())
        secret = folder / "webhook-secret"
        secret.touch(mode=0o600)
        secret.write_text(f"whsec_{base64.b64encode(bytes(32)).decode()}")
        sections = {
            "mqtt": {"host": "127.0.0.1", "port": free_port()},
            "webhooks": {"url": f"https://127.0.0.1:{free_port()}/", "secret_file": str(secret)},
            "settlement": {"post_results": True},
            "privacy": {"pool_size": 1},
            "server": {"grace_seconds": 1},
        }
        _write(folder, chain.url, earner, built.port, None, sections)
        config = load_config(folder / "config.yaml")
        built.serving = asyncio.create_task(serve(config, ServiceManager()), name="node")
        try:
            await until(built.ready, built)
            await until(lambda: _all_there(built), built)
            yield built
        finally:
            built.serving.cancel()
            await asyncio.gather(built.serving, return_exceptions=True)


async def _all_there(built: NodeTask) -> bool:
    return set(ENDING + RESTARTED) <= set(built.parts())


async def until(condition: Callable[[], Awaitable[bool]], built: NodeTask) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            if built.serving.done():
                built.serving.result()
            await asyncio.sleep(0.02)


async def test_every_part_of_a_node_is_known_here(node: NodeTask) -> None:
    """A new task has to be said what its end means."""
    assert set(node.parts()) == set(ENDING + RESTARTED)


@pytest.mark.parametrize("name", ENDING)
async def test_a_part_that_dies_ends_the_node(node: NodeTask, name: str) -> None:
    """Cancelled by nobody of ours, as by a library that lets a CancelledError slip: an exception, so a status other than 0."""
    node.parts()[name].cancel()
    async with asyncio.timeout(30):
        await asyncio.wait({node.serving})
    assert not node.serving.cancelled()
    with pytest.raises(TaskEnded, match=name):
        raise node.serving.exception() or AssertionError("the node ended as if all were well")


@pytest.mark.parametrize("name", RESTARTED)
async def test_a_part_that_only_helps_is_started_again(node: NodeTask, name: str) -> None:
    """The node stays, and ready."""
    before = node.parts()[name]
    before.cancel()

    async def restarted() -> bool:
        return node.parts().get(name) not in {None, before}

    await until(restarted, node)
    assert await node.ready()


async def test_whatever_way_a_part_ends_is_raised() -> None:
    """By returning, by its own exception, or cancelled; a task that is stopped does not count."""

    async def returns() -> None:
        return None

    async def breaks() -> NoReturn:
        raise ValueError("its own")

    for work, raised in ((returns(), TaskEnded), (breaks(), ValueError), (asyncio.sleep(3600), TaskEnded)):
        background = TaskSupervisor()
        stopped = background.start_task(asyncio.sleep(3600), "stopped")
        task = background.start_task(work, "part")
        await background.stop_tasks(stopped)
        if raised is TaskEnded:
            task.cancel()
        with pytest.raises(raised):
            await background.wait_for_end()
        assert background.first_ended == "part"


async def test_parts_that_run_together_end_together() -> None:
    """The others are cancelled, and the first one's exception is raised."""
    other = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            other.set()

    async def breaks() -> None:
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        await run_until_one_ends({"waits": waits(), "breaks": breaks()})
    assert other.is_set()


async def test_a_restarted_task_counts_its_ends() -> None:
    """Each end is a line and a number; after `stop` it stays ended."""
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs < 3:
            raise ValueError(runs)
        await asyncio.Event().wait()

    restarted = RestartedTask("part", work, restart_seconds=0)
    restarted.start()
    async with asyncio.timeout(5):
        while runs < 3:
            await asyncio.sleep(0)
    assert (restarted.restarts, restarted.running) == (2, True)
    await restarted.stop()
    assert not restarted.running


def test_json_that_nests_without_end_is_an_exception_and_not_the_end_of_the_process() -> None:
    """A library raises the recursion limit beyond what the stack holds as soon as the node is imported; the node takes it back."""
    script = (
        "import json, sys\n"
        "import pandacea.app.node\n"
        "from pandacea.app.tuning import RECURSION_LIMIT, limit_recursion\n"
        "limit_recursion()\n"
        "assert sys.getrecursionlimit() == RECURSION_LIMIT\n"
        "try:\n"
        "    json.loads('[' * 5_000_000)\n"
        "except RecursionError:\n"
        "    print('an exception')\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    )
    assert (done.returncode, done.stdout) == (0, "an exception\n"), done.stderr
