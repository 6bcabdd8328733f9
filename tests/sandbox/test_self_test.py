"""A node does not serve from a sandbox that fails its self-test, and `doctor` shows each probe."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pandacea.domain.finding import Finding, FindingState
from pandacea.domain.limits import Limits
from pandacea.domain.outcome import Failure, Outcome
from pandacea.errors import Broken
from pandacea.flows.ports import SandboxEvent, SandboxJob
from pandacea.sandbox.bubblewrap.backend import BubblewrapSandbox
from pandacea.sandbox.bubblewrap.cgroups import NodeCgroup
from pandacea.sandbox.diagnose import diagnose_sandbox
from pandacea.sandbox.docker.backend import DockerSandbox
from pandacea.sandbox.select_backend import select_backend
from pandacea.sandbox.selftest import ProbeResult, RunJob, _check_uids, run_self_test
from pandacea.sandbox.settings import BubblewrapSettings, DockerSettings, PoolSettings
from tests.run_id import instance_name
from tests.sandbox.harness import IMAGE, Laboratory
from tests.sandbox.leftovers import left_behind

Unopened = tuple[DockerSandbox | BubblewrapSandbox, Callable[[], list[str]]]
SUBJECTS = (
    *("network", "uid", "root file system", "descriptors", "supervisor", "guest socket", "processes", "channels", "pids", "disk"),
    *("inodes", "memory", "time", "machine", "system calls: network", "system calls: namespaces", "system calls: kernel surface"),
    *("system calls: identity", "system calls: devices", "system calls: channels", "system calls: other processes"),
)


@pytest.mark.asyncio(loop_scope="session")
async def test_every_promise_is_tried(laboratory: Laboratory) -> None:
    """At start, in a real sandbox of this kind: each subject, and each probe passed."""
    names = [probe.name for probe in laboratory.sandbox.probes]
    for subject in SUBJECTS:
        assert any(name.startswith(subject) for name in names), subject
    assert all(probe.passed for probe in laboratory.sandbox.probes)


async def test_what_does_not_bite_is_found(tmp_path: Path) -> None:
    """No sandbox at all fails: the probes here run in this very process."""

    async def no_box(job: SandboxJob, on_event: object) -> Outcome:
        if b"hoard" in job.code or b"ignores every signal" in job.code:
            return Outcome(failure=None, detail="nothing stopped it", output=b"")
        return Outcome(failure=None, detail="", output=b'[["network: no socket of any family", false, "[2]"]]\n')

    probes = await run_self_test(no_box, Limits(), tmp_path)
    assert {probe.name.split(":")[0] for probe in probes if not probe.passed} == {"network", "memory", "time", "uid"}


async def test_a_probe_that_cannot_finish_proves_nothing(tmp_path: Path) -> None:
    """No answer is a failure, not a pass."""

    async def silent(job: SandboxJob, on_event: object) -> Outcome:
        return Outcome(failure=Failure.GUEST_DIED, detail="it died", output=b"")

    (tmp_path / "self-test-of-a-killed-node").mkdir()
    probes = await run_self_test(silent, Limits(), tmp_path)
    assert not any(probe.passed for probe in probes)
    assert list(tmp_path.iterdir()) == [], "nothing is left of it, nor of one that was killed"


@pytest.mark.asyncio(loop_scope="session")
async def test_doctor_shows_the_table_and_leaves_a_running_node_alone(laboratory: Laboratory, environment: Path) -> None:
    """The rows name the sandbox, why it is this one, and each probe; the node's own instances continue to run."""
    kind = laboratory.mode.split("-")[0]
    instance, state, pool = f"doctor-{laboratory.instance}", laboratory.folder / "doctor", PoolSettings(size=0)
    docker = DockerSettings(IMAGE, state, instance, pool=pool)
    bubblewrap = BubblewrapSettings(environment, state, instance, NodeCgroup.is_available(), pool)
    seen: list[SandboxEvent] = []
    rows = await diagnose_sandbox(kind, docker, bubblewrap)
    assert all(row.ok for row in rows), [row for row in rows if not row.ok]
    assert rows[0] == Finding("sandbox", "sandbox", FindingState.OK, f"privacy.sandbox says {kind}")
    values = [row for row in rows if not row.detail or re.search(r"[\[\]{}']|\bNone\b|\b\d{7,}\b|^\(|^\d+$", row.detail)]
    assert values == [], "details are words, not values of a program"
    assert len(rows) > len(SUBJECTS)
    outcome = await laboratory.sandbox.run_job(laboratory.job("print('alive')"), seen.append)
    assert outcome.output == b"alive\n"
    assert left_behind(instance, state) == []


@pytest.fixture(params=["docker", "bubblewrap"])
async def unopened(request: pytest.FixtureRequest, environment: Path, tmp_path: Path) -> Unopened:
    """A sandbox of each kind, and what it has left on this machine so far."""
    if request.param == "docker":
        request.getfixturevalue("image")
    instance = instance_name(f"refused-{request.param}")
    docker, bubblewrap = (
        DockerSettings(IMAGE, tmp_path, instance),
        BubblewrapSettings(environment, tmp_path, instance, NodeCgroup.is_available()),
    )
    sandbox, _ = await select_backend(request.param, docker, bubblewrap)
    return sandbox, lambda: left_behind(instance, tmp_path)


async def test_a_start_that_is_refused_leaves_nothing(unopened: Unopened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failed probe is named, and instances, control groups and folders of the self-test are gone by then."""
    sandbox, left = unopened
    seen: list[str] = []

    async def fails(run: RunJob, limits: Limits, state_dir: Path, **promised: Any) -> tuple[ProbeResult, ...]:
        async def run_and_watch(job: SandboxJob, on_event: Callable[[SandboxEvent], None]) -> Outcome:
            def watch(event: SandboxEvent) -> None:
                seen.extend(left())  # its sandbox waits for this answer
                on_event(event)

            return await run(job, watch)

        probes = await run_self_test(run_and_watch, limits, state_dir, **promised)
        assert any(line.startswith(("control group", "container")) for line in seen), "the trial took place elsewhere"
        return (*probes, ProbeResult("walls", False, "made of paper"))

    monkeypatch.setattr("pandacea.sandbox.service.run_self_test", fails)
    with pytest.raises(Broken, match=r"nothing is served: walls \(made of paper\)"):
        await sandbox.start()
    assert left() == []


async def test_a_start_that_is_given_up_leaves_nothing(unopened: Unopened) -> None:
    """A stop while the first instances are being created."""
    sandbox, left = unopened
    opening = asyncio.create_task(sandbox.start())
    while not any(line.startswith(("container", "folder")) for line in await asyncio.to_thread(left)):
        assert not opening.done(), "it was open before an instance was seen"
    opening.cancel()
    await asyncio.wait({opening})
    assert opening.cancelled()
    assert left() == []


async def test_doctor_says_what_is_missing(tmp_path: Path) -> None:
    """An engine that does not answer and an environment that is not there are rows, not crashes."""
    docker = DockerSettings("nobody/has:this", tmp_path / "docker", engine_url="unix:///nowhere/docker.sock")
    rows = await diagnose_sandbox("auto", docker, BubblewrapSettings(tmp_path / "no-environment", tmp_path / "bubblewrap"))
    assert [row.state for row in rows] == [FindingState.OK, FindingState.FAIL]
    assert "the socket unix:///nowhere/docker.sock is not there" in rows[0].detail
    assert "pandacea environment build" in rows[1].remedy


@pytest.mark.parametrize(
    ("found", "passed"),
    [
        ([10_001, 10_002, 10_003], True),
        ([10_001, 10_002], True),
        ([10_001], False),
        ([], False),
        ([10_001, 10_001], False),
        ([10_001, 0], False),
        ([10_001, None, 10_003], False),
    ],
)
def test_each_instance_that_said_its_uid_has_one_of_its_own(found: list[int | None], passed: bool) -> None:
    """Two say it at least; the one that the time limit ends may be too late for it on a slow machine."""
    assert _check_uids(found, range(10_001, 11_025)).passed is passed
