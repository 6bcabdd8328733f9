"""A replay compares a new run with what was signed, names what did not repeat, and leaves nothing but a row of the audit log."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from pandacea.domain.job import Job
from pandacea.domain.outcome import Artifact, Failure, Outcome
from pandacea.errors import ProblemError, Refused
from pandacea.flows.ports import SandboxEvent, SandboxIdentity, SandboxJob
from pandacea.flows.replay import NOT_REPEATED, REPEATED_OTHERWISE, ReplayPorts, ReplayReport, replay_computation
from pandacea.flows.submit import submit_job
from tests.fakes import LEASE_ID, cached_lease
from tests.flows.conftest import COMPLETED, World, caller, computation_request
from tests.flows.test_audit_log import events, run

IDENTITY = SandboxIdentity("fake", "sha256:" + "0" * 64, "0" * 64)


def ports(world: World, **changes: object) -> ReplayPorts:
    """What the running node replays with."""
    made = ReplayPorts(
        database=world.submit.database,
        products=world.execute.products,
        sandbox=world.sandbox,
        identity=IDENTITY,
        upload_files=world.uploads.files,
        results=world.execute.results,
        clock=world.clock,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # names of fields


def write_artifact(world: World, contents: list[bytes]) -> None:
    """Let each run leave the next of these bytes as `m.bin` (the last one for good)."""
    left = list(contents)

    async def run_job(job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
        world.sandbox.jobs.append(job)
        content = left.pop(0) if len(left) > 1 else left[0]
        (job.results_dir / "0").write_bytes(content)
        artifact = Artifact("m.bin", job.results_dir / "0", len(content), hashlib.sha256(content).hexdigest())
        return replace(COMPLETED, artifacts=(artifact,))

    world.sandbox.run_job = run_job  # type: ignore[method-assign]


async def row(world: World, computation_id: str) -> Job | None:
    async with world.submit.database.read_session() as session:
        return await session.jobs.find_job(computation_id)


def named(report: ReplayReport) -> dict[str, str]:
    return {one.what: one.reason for one in report.differences}


async def test_an_honest_result_repeats_and_nothing_is_left(world: World) -> None:
    """The same sandbox job but for its folder; the row, its charge and receipt and the files are as before; no message is put."""
    write_artifact(world, [b"weights"])
    job = await run(world, 1)
    before = await row(world, job.computation_id)
    report = await replay_computation(job.computation_id, ports(world), by="operator ann")
    assert report.is_equal
    first, again = world.sandbox.jobs
    assert replace(again, results_dir=first.results_dir) == first
    assert again.results_dir != first.results_dir
    assert await row(world, job.computation_id) == before
    assert [path.name for path in world.execute.results.folder.iterdir()] == [job.computation_id]
    assert (await events(world))[-1] == ("replayed", "operator ann")


@pytest.mark.parametrize(
    ("contents", "reason"), [([b"one", b"two"], REPEATED_OTHERWISE), ([b"one", b"two", b"three"], NOT_REPEATED)]
)
async def test_an_artifact_that_differs_is_named_with_the_reason(world: World, contents: list[bytes], reason: str) -> None:
    """A second replay tells a script that does not repeat from a result that never was this script's."""
    write_artifact(world, contents)
    job = await run(world, 1)
    report = await replay_computation(job.computation_id, ports(world))
    assert not report.is_equal
    assert named(report) == {"artifact m.bin": reason}
    assert len(world.sandbox.jobs) == 3


async def test_another_output_or_exit_is_named(world: World) -> None:
    """Each of them by itself."""
    job = await run(world, 1)
    world.sandbox.outcome = Outcome(Failure.SCRIPT_ERROR, "", b"other\n", exit_status=1, code_started=True)
    assert set(named(await replay_computation(job.computation_id, ports(world)))) == {"exit", "output"}


async def test_a_table_that_is_not_kept_any_more_is_named_and_nothing_runs(world: World) -> None:
    """What cannot repeat is not tried on other rows."""
    job = await run(world, 1)
    world.catalogue.product.assets[next(iter(world.catalogue.product.assets))].path.unlink()
    report = await replay_computation(job.computation_id, ports(world))
    assert not report.ran
    assert list(named(report)) == ["table a"]
    assert "another version now" in named(report)["table a"]
    assert len(world.sandbox.jobs) == 1


async def test_another_environment_is_named_though_the_output_is_equal(world: World) -> None:
    """An equal output in another environment is worth knowing, and is not the same run."""
    job = await run(world, 1)
    report = await replay_computation(
        job.computation_id, ports(world, identity=replace(IDENTITY, environment="sha256:" + "1" * 64))
    )
    assert (report.ran, report.is_equal) == (True, False)
    assert list(named(report)) == ["environment"]


async def test_kept_bytes_that_are_not_what_was_signed_are_named(world: World) -> None:
    """The disk's, beside the replay's."""
    write_artifact(world, [b"weights"])
    job = await run(world, 1)
    (world.execute.results.path_of(job.computation_id) / "0").write_bytes(b"weightz")
    assert list(named(await replay_computation(job.computation_id, ports(world)))) == ["kept artifact m.bin"]


async def test_what_has_no_signed_result_is_refused(world: World) -> None:
    """Unknown, waiting, and one whose script was deleted when its time was over."""
    with pytest.raises(ProblemError, match="No computation"):
        await replay_computation("0x12", ports(world))
    job = await run(world, 1)
    world.lease_cache.leases[LEASE_ID] = cached_lease(max_computations=9)
    waiting = await submit_job(computation_request(), caller(2), world.submit)
    with pytest.raises(Refused, match="nothing to compare with"):
        await replay_computation(waiting.job.computation_id, ports(world))
    async with world.submit.database.unit_of_work() as work:
        await work.jobs.clear_scripts(world.clock.now() + 1)
        await work.commit()
    with pytest.raises(Refused, match="was deleted when its time was over"):
        await replay_computation(job.computation_id, ports(world))
