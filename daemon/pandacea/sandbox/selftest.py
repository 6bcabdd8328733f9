"""The self-test: tries every limit and restriction inside real instances before the node serves anybody."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Final

from pandacea.domain.ids import AssetId, ComputationId
from pandacea.domain.limits import MIB, Limits
from pandacea.domain.outcome import Failure, Outcome
from pandacea.flows.ports import InputTable, SandboxEvent, SandboxJob, TableFormat
from pandacea.sandbox import proc_masks
from pandacea.sandbox.seccomp.bpf import syscall_number
from pandacea.sandbox.seccomp.rules import DENIED
from pandacea.sandbox.settings import GUEST_UID
from pandacea_sdk.protocol.json_types import JsonObject

RunJob = Callable[[SandboxJob, Callable[[SandboxEvent], None]], Awaitable[Outcome]]

_FILTERED_ARGUMENTS: Final[tuple[tuple[str, str, tuple[int, ...]], ...]] = (
    ("clone of a namespace", "clone", (0x1000_0000 | 17,)),
    ("clone3, whose arguments no filter sees", "clone3", (0, 0)),
    ("a socket pair of another family", "socketpair", (2, 1, 0)),
    ("limits of another process", "prlimit64", (1, 7)),
    ("odd process controls", "prctl", (59,)),
    ("leases on files", "fcntl", (0, 1024, 0)),
    ("pushing into a terminal", "ioctl", (0, 0x5412)),
    ("pushing pages out of the shared cache", "madvise", (0, 0, 21)),
    ("reads that tell what is cached", "preadv2", (0, 0, 0, 0, 0, 8)),
    ("extended attributes", "fsetxattr", (0, 0, 0, 0)),
)
"""Calls that are allowed in general and denied with these arguments: what is denied, the call, the arguments."""
_FOLDER: Final = "self-test-"
_PROBE_SECONDS: Final = 60.0
_TIME_PROBE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What one probe found."""

    name: str
    passed: bool
    detail: str


async def run_self_test(
    run: RunJob, limits: Limits, state_dir: Path, *, uids: range | None = None, leaves_no_access_time: bool = False
) -> tuple[ProbeResult, ...]:
    """Run every probe in real instances with these limits; about a second, three instances at a time.

    `uids` and `leaves_no_access_time`: what the backend promises, see `SandboxBackend`.
    """
    for left in state_dir.glob(f"{_FOLDER}*"):
        shutil.rmtree(left)  # of a node that was killed during its self-test
    with tempfile.TemporaryDirectory(prefix=_FOLDER, dir=state_dir) as folder:
        test = _SelfTest(run, limits, Path(folder), leaves_no_access_time)
        # All of them, also when one fails: none may still use an instance when the sandbox stops.
        found = await asyncio.gather(test.probe_isolation(), test.probe_memory(), test.probe_time(), return_exceptions=True)
    probes: list[ProbeResult] = []
    for result in found:
        if isinstance(result, BaseException):
            raise result
        probes.extend(result)
    return (*probes, _check_uids(test.uids, uids))


def _check_uids(found: Sequence[int | None], uids: range | None) -> ProbeResult:
    """Check the uids of simultaneous instances: each one of the range, or, where there is no range, all the usual one."""
    detail = f"{len(found)} at once: " + ", ".join(map(str, found))
    if uids is None:
        return ProbeResult("uid: the one that scripts see", len(found) > 1 and set(found) == {GUEST_UID}, detail)
    unique = 1 < len(found) == len(set(found)) and all(uid is not None and uid in uids for uid in found)
    return ProbeResult("uid: a sandbox's own while it lives", unique, detail)


class _SelfTest:
    def __init__(self, run: RunJob, limits: Limits, folder: Path, leaves_no_access_time: bool) -> None:
        self._run, self._limits, self._folder = run, limits, folder
        self._leaves_no_access_time = leaves_no_access_time
        self.uids: list[int | None] = []
        """What the first line of each probe's output says, None where it is not a number; nothing of a probe that its time limit ended
        before its first line: on a slow machine the shortest comes to none."""

    async def _run_probe(self, name: str, params: JsonObject, seconds: float, inputs: tuple[InputTable, ...] = ()) -> Outcome:
        results = self._folder / f"results-{name}"
        results.mkdir()
        job = SandboxJob(
            computation_id=ComputationId("0x" + "0" * 64),
            code=(resources.files("pandacea.sandbox") / "probes" / f"{name}.py").read_bytes(),
            params=json.dumps(params).encode(),
            inputs=inputs,
            uploads={},
            limits=replace(self._limits, time_seconds=seconds),
            seed=0,
            threads=1,
            results_dir=results,
        )
        outcome = await self._run(job, lambda _: None)
        first = outcome.output.split(b"\n", 1)[0]
        if outcome.output or outcome.failure is not Failure.TIME_LIMIT:
            self.uids.append(int(first) if first.isdigit() else None)
        return outcome

    async def probe_isolation(self) -> tuple[ProbeResult, ...]:
        table = self._folder / "probe.csv"
        table.write_text("a\n1\n", encoding="ascii")
        table.chmod(0o644)
        os.utime(table, (0, 0))  # an access time so old that any reading through an ordinary mount moves it
        limits = self._limits
        params = {
            "kept": sorted(proc_masks.VISIBLE),
            "neutral": proc_masks.FIXED,
            "leaves_no_access_time": self._leaves_no_access_time,
            "pids": limits.pids,
            "workspace_bytes": limits.workspace_bytes,
            "workspace_inodes": limits.workspace_inodes,
            "denied": {
                purpose: {call: number for call in calls if (number := syscall_number(call)) is not None}
                for purpose, calls in DENIED.items()
            },
            "conditions": [(name, syscall_number(call), arguments) for name, call, arguments in _FILTERED_ARGUMENTS],
        }
        inputs = (InputTable(AssetId("probe"), "probe", table, TableFormat.CSV),)
        outcome = await self._run_probe("walls", params, _PROBE_SECONDS, inputs)
        try:
            rows = json.loads(outcome.output.splitlines()[-1])
            return tuple(ProbeResult(str(name), bool(passed), str(detail)) for name, passed, detail in rows)
        except (ValueError, IndexError, TypeError):
            said = outcome.output[-500:].decode("utf-8", "replace")
            return (ProbeResult("isolation", False, f"the probe did not finish: {outcome.detail} {said}"),)

    async def probe_memory(self) -> tuple[ProbeResult, ...]:
        outcome = await self._run_probe("memory", {}, _PROBE_SECONDS)
        passed = outcome.failure is Failure.MEMORY_LIMIT
        detail = f"ended at {self._limits.memory_bytes // MIB} MiB" if passed else outcome.detail
        return (ProbeResult("memory: the limit holds", passed, detail),)

    async def probe_time(self) -> tuple[ProbeResult, ...]:
        outcome = await self._run_probe("time", {}, _TIME_PROBE_SECONDS)
        passed = outcome.failure is Failure.TIME_LIMIT
        detail = f"ended after {_TIME_PROBE_SECONDS:g} s" if passed else outcome.detail
        return (ProbeResult("time: the limit holds", passed, detail),)
