"""Several workers each find room for one result; the disk fills, workers die, and their rows stay RUNNING for ever."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pandacea.domain.charge import Charge, charge_at_end
from pandacea.domain.job import JobState, Mode
from pandacea.domain.limits import MIB
from pandacea.domain.outcome import Failure
from pandacea.files.results import SPARE_BYTES, SPARE_INODES, ResultStore
from pandacea.flows.execute import run_next_job
from pandacea.flows.result_quota import find_shortage
from tests.flows.conftest import LIMITS, World, world
from tests.flows.test_execute import row, started
from tests.kill.rig import rig
from tests.prerequisites import find_program, skip_or_fail
from tests.sandbox.conftest import environment
from tests.sandbox.harness import close_laboratory, open_laboratory

__all__ = ["environment", "world"]

TWO_OF_64_MIB = """
import time
time.sleep(params or 0)
for name in ("a", "b"):
    with open(name, "wb") as file:
        for _ in range(64):
            file.write(b"1" * 1024 * 1024)
"""
MANY_FILES = """
for number in range(40):
    open(str(number), "w").close()
"""


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A tmpfs of its own."""
    if os.geteuid() != 0:
        skip_or_fail("mounting a small disk needs root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,{options}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.timeout(240)
async def test_four_workers_and_room_for_one_result(tmp_path: Path) -> None:
    """Four results of 128 MiB, some 400 MiB of disk: as many run at once as fit; the others wait, end, and cost nothing."""
    folder = tmp_path / "node"
    (folder / "state").mkdir(parents=True, mode=0o700)
    privacy = {"workers": 4, "pool_size": 0, "queue_seconds": 20}
    with small_disk(folder / "state" / "results", f"size={SPARE_BYTES // MIB + 160}m"):
        async with rig(folder, privacy=privacy) as node:
            await node.start()
            slowly = TWO_OF_64_MIB.replace("params or 0", "5")  # all of them are accepted before the first one is done
            answers = await asyncio.gather(*(node.submit(slowly) for _ in range(4)))
            assert [answer.status for answer in answers] == [202] * 4
            await node.until(lambda: node.rows("SELECT 1 FROM job WHERE state IN ('pending', 'running')") == [], 100)
            ends = sorted(node.rows("SELECT state, failure, charge FROM job"), key=str)
            assert ends == [("completed", None, "charged")] + [("failed", "queue-deadline", "returned")] * 3
            async with node.session.get(f"http://127.0.0.1:{node.port}/readyz") as answer:
                ready = await answer.json()
            assert (answer.status, ready["workers"]) == (503, "ok")
            assert ready["results"] == "the disk has no room for another result", "the reason, without a figure"


@pytest.mark.parametrize(("options", "code"), [("size=8m", TWO_OF_64_MIB), ("nr_inodes=12", MANY_FILES)], ids=["bytes", "inodes"])
async def test_a_disk_that_fills_under_a_run_is_the_nodes_own_failure(
    options: str,
    code: str,
    tmp_path: Path,
    environment: Path,
) -> None:
    """A real box, a real disk without room: the run ends typed, with the cause in its sentence, and costs nothing."""
    find_program("bwrap", "bubblewrap")
    made = await open_laboratory("bubblewrap-cold", environment, name="m10")
    try:
        with small_disk(tmp_path / "results", options) as disk:
            job = replace(made.job(code), results_dir=disk)
            outcome = await made.sandbox.run_job(job, lambda _event: None)
            assert list(disk.iterdir()) == [], "what had been written is gone: it is room for others"
    finally:
        await close_laboratory(made)
    assert outcome.failure is Failure.SANDBOX_FAILED
    assert "No space left on device" in outcome.detail
    assert charge_at_end(outcome.failure, code_started=True, released=False, failed_runs=0) is Charge.RETURNED


async def test_a_run_under_way_has_reserved_its_room(world: World, tmp_path: Path) -> None:
    """Room for two and a half results: the second run may start, the third may not; inodes count as bytes do."""
    largest = LIMITS.artifacts_bytes + LIMITS.output_bytes
    shelf = ResultStore(tmp_path, max_bytes=2**62, free_bytes=lambda _: SPARE_BYTES + largest * 5 // 2, free_inodes=lambda _: 2**62)
    few = ResultStore(
        tmp_path,
        max_bytes=2**62,
        free_bytes=lambda _: 2**62,
        free_inodes=lambda _: SPARE_INODES + (LIMITS.artifact_count + 1) * 5 // 2,
    )
    pot = ResultStore(tmp_path, max_bytes=largest * 5 // 2, free_bytes=lambda _: 2**62, free_inodes=lambda _: 2**62)
    books = world.submit.database
    world.lease_cache.change_lease(replace(next(iter(world.lease_cache.leases.values())), max_computations=9))
    for number in range(3):
        async with books.read_session() as session:
            found = [await find_shortage(session, one, LIMITS, Mode.LIVE) is None for one in (shelf, few, pot)]
        assert found == [number < 2] * 3, f"{number} run already"
        identity = await started(world, number + 1)
        async with books.unit_of_work() as work:
            await work.jobs.change_state(identity, JobState.PENDING, JobState.RUNNING)
            await work.commit()


@pytest.mark.parametrize("problem", [OSError(28, "no space"), OSError(122, "quota"), OSError(5, "I/O error")])
async def test_a_result_that_does_not_reach_the_disk_ends_uncharged(
    world: World,
    problem: OSError,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Full, over its quota or broken while the artifacts are made durable."""

    async def fail(*_: object) -> None:
        raise problem

    identity = await started(world)
    monkeypatch.setattr(ResultStore, "make_durable", fail)
    assert await run_next_job(world.execute)
    job = await row(world, identity)
    assert (job.state, job.failure, job.charge) == (JobState.FAILED, Failure.SANDBOX_FAILED, Charge.RETURNED)
    assert os.strerror(problem.errno or 0) in job.detail
