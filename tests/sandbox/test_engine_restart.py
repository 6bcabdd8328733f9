"""The container engine stops and comes back: whose failure that is, and that the next job runs."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandacea.domain.ids import ComputationId
from pandacea.domain.outcome import Failure
from pandacea.errors import Unavailable
from pandacea.flows.ports import SandboxJob
from pandacea.sandbox.docker import DockerSandbox
from pandacea.sandbox.settings import DockerSettings, PoolSettings
from tests.engine import prepare
from tests.parts import program
from tests.run import public_folder
from tests.sandbox.harness import LIMITS

pytestmark = pytest.mark.timeout(300)


class Engine:
    """A container engine of the test's own, so that nobody else's is stopped."""

    def __init__(self, folder: Path) -> None:
        self.url = f"unix://{folder}/engine.sock"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        folder = self._folder
        line = [
            *("unshare", "--net"),  # an engine without bridge removes the bridge of the machine's own engine
            program("dockerd", "docker.io"),
            "--host",
            self.url,
            "--data-root",
            f"{folder}/data",
            "--exec-root",
            f"{folder}/exec",
        ]
        line += ["--pidfile", f"{folder}/pid", "--iptables=false", "--ip6tables=false", "--bridge=none"]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(line, stdout=log, stderr=log)
        for _ in range(300):
            if self.docker("version") is not None:
                return
            assert self._process.poll() is None, (folder / "log").read_text()[-2000:]
        raise AssertionError((folder / "log").read_text()[-2000:])

    def docker(self, *words: str) -> str | None:
        """What the client says, or None when it fails."""
        done = subprocess.run(["docker", "--host", self.url, *words], capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def stop(self) -> None:
        """Stop it as a service manager would."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None


@pytest.fixture
def engine(image: str) -> Iterator[Engine]:
    """A private engine that holds the base image."""
    folder = public_folder("engine")
    made = Engine(folder)
    made.start()
    saved = folder / "base.tar"
    subprocess.run(["docker", "save", "-o", str(saved), prepare.BASE], check=True)
    assert made.docker("load", "-i", str(saved)) is not None
    yield made
    made.stop()
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        if str(folder) in line:
            subprocess.run(["umount", line.split()[1]], check=False)
    shutil.rmtree(folder)


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
    await sandbox.open()
    started = asyncio.Event()
    running = asyncio.create_task(sandbox.run(_job(tmp_path, 1, "print('x')\nwhile True: pass"), lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 60)
    await asyncio.to_thread(engine.stop)
    outcome = await running
    assert outcome.failure is Failure.SANDBOX_FAILED, outcome
    assert outcome.code_started
    with pytest.raises(Unavailable, match="container engine"):
        await sandbox.run(_job(tmp_path, 2, "print('never')"), lambda _: None)
    await asyncio.to_thread(engine.start)
    outcome = await sandbox.run(_job(tmp_path, 3, "print('back')"), lambda _: None)
    assert outcome.output == b"back\n"
    hoard = "import os, time\nhoard = []\nif os.fork() == 0:\n    while True: hoard.append(bytearray(10_000_000))\n"
    outcome = await sandbox.run(_job(tmp_path, 4, hoard + "os.wait()\ntime.sleep(30)"), lambda _: None)
    assert outcome.failure is Failure.MEMORY_LIMIT, "the engine's events are followed again"
    await sandbox.close()
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
        results=results,
    )
