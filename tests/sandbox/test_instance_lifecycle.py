"""Instances are created, used once and destroyed: pools, cancellation, a killed node, sweeping, concurrent jobs."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pandacea.domain.outcome import Failure
from pandacea.errors import BadConfig, Broken
from pandacea.sandbox.backend import InstanceShape
from pandacea.sandbox.bubblewrap.cgroups import NodeCgroup
from tests.prerequisites import ROOT
from tests.sandbox.conftest import modes
from tests.sandbox.harness import Laboratory, close_laboratory, open_laboratory, with_caps
from tests.sandbox.leftovers import containers, control_groups, left_behind

_NODE = """
import asyncio, sys
from pathlib import Path
from tests.sandbox.harness import open_laboratory

async def main():
    laboratory = await open_laboratory(sys.argv[1], Path(sys.argv[2]))
    print(laboratory.folder, flush=True)
    print(laboratory.instance, flush=True)
    async def one():
        outcome = await laboratory.sandbox.run_job(laboratory.job("print('running', flush=True)\\nwhile True: pass"), told)
    def told(event):
        print(type(event).__name__, flush=True)
    await asyncio.gather(*(one() for _ in range(int(sys.argv[3]))))

asyncio.run(main())
"""


def guests_of(pid: int) -> list[psutil.Process]:
    """Processes beneath a node that run our guest."""
    try:
        return [child for child in psutil.Process(pid).children(recursive=True) if "guest.boot" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


async def until(condition: object, seconds: float = 30) -> bool:
    """Whether a callable becomes true in time."""
    assert callable(condition)
    for _ in range(int(seconds / 0.05)):
        if condition():
            return True
        await asyncio.sleep(0.05)
    return False


@pytest.mark.asyncio(loop_scope="session")
async def test_cancelling_destroys_the_box(laboratory: Laboratory) -> None:
    """A cancelled run raises CancelledError, and its processes are gone."""
    started = asyncio.Event()
    await laboratory.wait_until_warm()
    job = laboratory.job("while True: pass")
    task = asyncio.create_task(laboratory.sandbox.run_job(job, lambda _: started.set()))
    await asyncio.wait_for(started.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    outcome = await laboratory.run("print('next')")
    assert outcome.output == b"next\n"


@pytest.mark.asyncio(loop_scope="session")
async def test_jobs_side_by_side_do_not_see_each_other(laboratory: Laboratory) -> None:
    """Several jobs at once: each has its own files, processes and output."""
    code = "import os, time\nopen(f'mine-{params}', 'w').write('x')\ntime.sleep(0.5)\nprint(params, os.listdir('.'))\n"
    jobs = [laboratory.job(code, params=json.dumps(number)) for number in range(4)]
    outcomes = await asyncio.gather(*(laboratory.sandbox.run_job(job, lambda _: None) for job in jobs))
    assert [outcome.output.decode() for outcome in outcomes] == [f"{number} ['mine-{number}']\n" for number in range(4)]


@pytest.mark.asyncio(loop_scope="session")
async def test_every_job_has_a_box_of_its_own(laboratory: Laboratory) -> None:
    """Jobs that run at the same time share no process, mount, network, IPC or host-name namespace, and no file system to write to."""
    code = (
        "import os, time\ntime.sleep(0.5)\n"
        "print(*[os.stat('/proc/self/ns/' + n).st_ino for n in ('pid', 'mnt', 'net', 'ipc', 'uts')], os.stat('/workspace').st_dev)"
    )
    outcomes = await asyncio.gather(*(laboratory.sandbox.run_job(laboratory.job(code), lambda _: None) for _ in range(3)))
    seen = [outcome.output.split() for outcome in outcomes]
    assert [len(set(kind)) for kind in zip(*seen, strict=True)] == [3] * 6


@pytest.mark.asyncio(loop_scope="session")
async def test_other_limits_than_the_pools_start_cold_and_bite(laboratory: Laboratory) -> None:
    """A job may ask for less memory than warm instances have, and that is what it gets."""
    limits = with_caps(memory_bytes=560 * 1024 * 1024, time_seconds=30.0)
    outcome = await laboratory.run("hoard = bytearray(b'1') * (580 * 1024 * 1024)", limits=limits)
    assert outcome.failure is Failure.MEMORY_LIMIT


@pytest.mark.parametrize("mode", modes())
@pytest.mark.asyncio(loop_scope="session")
async def test_a_killed_node_leaves_nothing_running(mode: str, environment: Path, request: pytest.FixtureRequest) -> None:
    """Kill -9 amid jobs: every instance ends by itself; the next start of the same node sweeps what the dead one could not."""
    if mode.startswith("docker"):
        request.getfixturevalue("image")
    jobs = 6
    node = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _NODE, mode, str(environment), str(jobs)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'daemon'}:{ROOT}"},
        cwd=ROOT,
    )
    assert node.stdout is not None
    folder = Path((await node.stdout.readline()).decode().strip())
    instance = (await node.stdout.readline()).decode().strip()
    running = 0
    while running < jobs:
        running += (await asyncio.wait_for(node.stdout.readline(), 60)).startswith(b"OutputWritten")
    guests = guests_of(node.pid)
    node.send_signal(signal.SIGKILL)
    await node.wait()
    assert await until(lambda: not any(guest.is_running() for guest in guests)), [guest for guest in guests if guest.is_running()]
    if mode.startswith("docker"):
        assert await until(lambda: not containers(instance))
    assert await until(lambda: not any((group / "cgroup.procs").read_text().split() for group in control_groups(instance)))
    await _start_again(mode, environment, folder, instance)
    assert left_behind(instance, folder / "state") == []
    subprocess.run(["rm", "-r", str(folder)], check=True)


async def _start_again(mode: str, environment: Path, folder: Path, instance: str) -> None:
    from pandacea.sandbox.bubblewrap.backend import BubblewrapSandbox
    from pandacea.sandbox.docker.backend import DockerSandbox
    from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings, PoolSettings
    from tests.sandbox.harness import IMAGE

    pool = PoolSettings(size=0)
    sandbox: BubblewrapSandbox | DockerSandbox
    if mode.startswith("docker"):
        sandbox = DockerSandbox(DockerSettings(IMAGE, folder / "state", instance, pool=pool, self_test=False))
    else:
        sandbox = BubblewrapSandbox(
            BubblewrapSettings(environment, folder / "state", instance, NodeCgroup.is_available(), pool, self_test=False)
        )
    await sandbox.start()
    await sandbox.stop()


def test_memory_must_hold_the_files_and_the_supervisor() -> None:
    """Limits under which a script could have its own supervisor killed by filling its disk are refused, with the sum."""
    with pytest.raises(BadConfig, match="memory_bytes"):
        InstanceShape.from_limits(with_caps(memory_bytes=400 * 1024 * 1024))


@pytest.mark.asyncio
async def test_a_missing_environment_is_named(tmp_path: Path) -> None:
    """Bubblewrap without its packages says which command makes them."""
    with pytest.raises(Broken, match="pandacea environment build"):
        await open_laboratory("bubblewrap-cold", tmp_path)


@pytest.mark.asyncio
async def test_close_leaves_nothing(environment: Path) -> None:
    """After close: no process, no control group, no state but the staged program."""
    laboratory = await open_laboratory("bubblewrap-warm", environment, pool=3, name="closing")
    await laboratory.wait_until_warm()
    groups = control_groups(laboratory.instance)
    ours = [psutil.Process(int(pid)) for group in groups for pid in (group / "cgroup.procs").read_text().split()]
    assert ours
    await close_laboratory(laboratory)
    assert not any(process.is_running() for process in ours)
    assert control_groups(laboratory.instance) == []


@pytest.mark.asyncio
async def test_close_waits_for_the_engine(environment: Path, image: str) -> None:
    """A container whose guest has just ended is being removed by the engine itself; it is gone, too, when close returns."""
    laboratory = await open_laboratory("docker-cold", environment, name="closing")
    outcomes = await asyncio.gather(
        *(laboratory.sandbox.run_job(laboratory.job("print('last')"), lambda _: None) for _ in range(3))
    )
    await laboratory.sandbox.stop()
    assert left_behind(laboratory.instance, laboratory.folder / "state") == []
    assert [outcome.output for outcome in outcomes] == [b"last\n"] * 3
    shutil.rmtree(laboratory.folder)
