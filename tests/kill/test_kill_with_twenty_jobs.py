"""Kill -9 amid twenty jobs, in every kind of sandbox: they end, they are not lost, and the machine is as clean as before."""

from __future__ import annotations

import hashlib
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.kill.rig import KillRig, rig
from tests.prerequisites import find_program
from tests.sandbox.conftest import image, modes
from tests.sandbox.leftovers import left_behind, processes

__all__ = ["image"]

JOBS, WORKERS = 20, 4
BUSY = (
    "import subprocess\nopen('half', 'wb').write(b'x' * 1_000_000)\n"
    "children = [subprocess.Popen(['sleep', '600'], start_new_session=True) for _ in range(3)]\n"
    "print('busy', flush=True)\nwhile True: pass"
)
QUICK = "print('quick')\nopen('kept', 'w').write('x')"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", modes())
async def test_a_node_killed_amid_twenty_jobs(mode: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Four run, sixteen wait: what ran is told as interrupted, what waited is run by the next start, and nothing of a sandbox is left."""
    kind, warmth = mode.split("-")
    request.getfixturevalue("image") if kind == "docker" else find_program("bwrap", "bubblewrap")
    # One Spender has all workers but one.
    privacy = {"sandbox": kind, "pool_size": 1 if warmth == "warm" else 0, "workers": WORKERS + 1, "queue_per_spender": JOBS}
    async with rig(tmp_path, privacy=privacy) as node:
        instance = hashlib.sha256(str(node.state.resolve()).encode()).hexdigest()[:16]
        await node.start()
        busy = [await accepted(node, BUSY) for _ in range(WORKERS)]
        quick = [await accepted(node, QUICK) for _ in range(JOBS - WORKERS)]
        await node.until(lambda: len([line for line in processes(node.state).values() if "sleep 600" in line]) == 3 * WORKERS, 90)
        assert Counter(state for (state,) in node.rows("select state from job")) == {"running": WORKERS, "pending": JOBS - WORKERS}
        assert await node.kill() == -signal.SIGKILL
        await node.until(lambda: not running(instance, node), seconds=30)  # before anybody starts again: boxes end by themselves
        await node.start()
        await node.until(lambda: not node.rows("select 1 from job where state in ('pending', 'running')"), seconds=120)
        ends = dict(node.rows("select computation_id, state || ' ' || coalesce(failure, '') from job"))
        assert ends == dict.fromkeys(busy, "failed interrupted") | dict.fromkeys(quick, "completed ")
        assert await node.kill(signal.SIGTERM) == 0, node.log()
        assert left_behind(instance, node.state) == []
        assert {path.name for path in (node.state / "results").iterdir()} == set(quick)


async def accepted(node: KillRig, code: str) -> str:
    """Submit; the computation's id."""
    answer = await node.submit(code)
    assert answer.status == 202, answer.body
    return str(answer.json["computation_id"])


def running(instance: str, node: KillRig) -> list[str]:
    """What still runs of the dead node's sandboxes; empty control groups and folders wait for the next start."""
    return [line for line in left_behind(instance, node.state) if line.startswith(("process", "container"))]
