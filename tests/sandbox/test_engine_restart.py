"""The container engine stops and comes back: whose failure that is, and that the next job runs."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandacea.domain.ids import ComputationId
from pandacea.domain.outcome import Failure
from pandacea.errors import Unavailable
from pandacea.flows.ports import SandboxJob
from pandacea.sandbox.docker.backend import DockerSandbox
from pandacea.sandbox.settings import DockerSettings, PoolSettings
from tests.engine import prepare
from tests.engine.private import Engine, private_engine
from tests.sandbox.harness import LIMITS

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def engine(image: str, tmp_path: Path) -> Iterator[Engine]:
    """A private engine that holds the base image."""
    with private_engine() as made:
        saved = tmp_path / "base.tar"
        subprocess.run(["docker", "save", "-o", str(saved), prepare.BASE], check=True)
        assert made.docker("load", "-i", str(saved)) is not None
        yield made


async def test_an_engine_restart_is_survived(engine: Engine, environment: Path, tmp_path: Path) -> None:
    """A running job's end is our failure, not the script's; while the engine is down jobs may be retried; afterwards they run."""
    settings = DockerSettings(
        prepare.BASE,
        tmp_path / "state",
        "restart",
        engine_url=engine.url,
        environment=environment,
        pool=PoolSettings(size=0, limits=LIMITS),
    )
    sandbox = DockerSandbox(settings)
    await sandbox.start()
    started = asyncio.Event()
    running = asyncio.create_task(sandbox.run_job(_job(tmp_path, 1, "print('x')\nwhile True: pass"), lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 60)
    await asyncio.to_thread(engine.stop)
    outcome = await running
    assert outcome.failure is Failure.SANDBOX_FAILED, outcome
    assert outcome.code_started
    with pytest.raises(Unavailable, match="container engine"):
        await sandbox.run_job(_job(tmp_path, 2, "print('never')"), lambda _: None)
    await asyncio.to_thread(engine.start)
    outcome = await sandbox.run_job(_job(tmp_path, 3, "print('back')"), lambda _: None)
    assert outcome.output == b"back\n"
    hoard = "import os, time\nhoard = []\nif os.fork() == 0:\n    while True: hoard.append(bytearray(10_000_000))\n"
    outcome = await sandbox.run_job(_job(tmp_path, 4, hoard + "os.wait()\ntime.sleep(30)"), lambda _: None)
    assert outcome.failure is Failure.MEMORY_LIMIT, "the engine's events are followed again"
    await sandbox.stop()
    assert engine.docker("ps", "-aq") == ""


def _job(folder: Path, number: int, code: str) -> SandboxJob:
    results = folder / f"results-{number}"
    results.mkdir()
    return SandboxJob(
        computation_id=ComputationId(f"0x{number:064x}"),
        code=code.encode(),
        params=b"null",
        inputs=(),
        uploads={},
        limits=LIMITS,
        seed=1,
        threads=1,
        results_dir=results,
    )
