"""Does every limit bite on this machine, today? Asked inside real boxes before the node serves anybody."""

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
from typing import Any, Final

from pandacea.domain.ids import AssetId, ComputationId
from pandacea.domain.limits import MIB, Limits
from pandacea.domain.outcome import Failure, Outcome
from pandacea.flows.ports import InputTable, SandboxEvent, SandboxJob, TableFormat
from pandacea.sandbox import masks
from pandacea.sandbox.seccomp.numbers import NUMBERS
from pandacea.sandbox.seccomp.program import machine
from pandacea.sandbox.seccomp.rules import DENIED
from pandacea.sandbox.settings import GUEST_UID

Run = Callable[[SandboxJob, Callable[[SandboxEvent], None]], Awaitable[Outcome]]

_CONDITIONS: Final[tuple[tuple[str, str, tuple[int, ...]], ...]] = (
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
_FOLDER: Final = "self-test-"
_BOX_SECONDS: Final = 60.0
_TIME_PROBE_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Probe:
    """One promise, tried."""

    name: str
    held: bool
    detail: str


async def self_test(
    run: Run, limits: Limits, state_dir: Path, *, uids: range | None = None, leaves_no_access_time: bool = False
) -> tuple[Probe, ...]:
    """Try every promise in real boxes with these limits; about a second, three boxes at a time.

    `uids`: boxes have one of these each; None: all see themselves as the same. `leaves_no_access_time`: see `BoxMaker`.
    """
    for left in state_dir.glob(f"{_FOLDER}*"):
        shutil.rmtree(left)  # of a node that was killed while it tried
    with tempfile.TemporaryDirectory(prefix=_FOLDER, dir=state_dir) as folder:
        bench = _Bench(run, limits, Path(folder), leaves_no_access_time)
        # All of them, also when one fails: none must be left with a box when the sandbox closes.
        found = await asyncio.gather(bench.walls(), bench.memory(), bench.time(), return_exceptions=True)
    probes: list[Probe] = []
    for tried in found:
        if isinstance(tried, BaseException):
            raise tried
        probes.extend(tried)
    return (*probes, _own_uids(bench.uids, uids))


def _own_uids(found: Sequence[int | None], uids: range | None) -> Probe:
    """Three boxes that ran at once: as three uids of the range, or, where there is none, all as the usual one."""
    told = "three at once: " + ", ".join(map(str, found))
    if uids is None:
        return Probe("uid: the one that scripts are told", set(found) == {GUEST_UID}, told)
    own = len(set(found)) == len(found) and all(uid in uids for uid in found)
    return Probe("uid: a box's own while it lives", own, told)


class _Bench:
    def __init__(self, run: Run, limits: Limits, folder: Path, leaves_no_access_time: bool) -> None:
        self._run, self._limits, self._folder = run, limits, folder
        self._leaves_no_access_time = leaves_no_access_time
        self.uids: list[int | None] = []

    async def _outcome(self, name: str, params: dict[str, Any], seconds: float, inputs: tuple[InputTable, ...] = ()) -> Outcome:
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
            results=results,
        )
        outcome = await self._run(job, lambda _: None)
        first = outcome.output.split(b"\n", 1)[0]
        self.uids.append(int(first) if first.isdigit() else None)
        return outcome

    async def walls(self) -> tuple[Probe, ...]:
        table = self._folder / "probe.csv"
        table.write_text("a\n1\n", encoding="ascii")
        table.chmod(0o644)
        os.utime(table, (0, 0))  # an access time so old that any reading through an ordinary mount moves it
        limits, column = self._limits, 0 if machine() == "x86_64" else 1
        params = {
            "kept": sorted(masks.KEPT),
            "neutral": masks.NEUTRAL,
            "leaves_no_access_time": self._leaves_no_access_time,
            "pids": limits.pids,
            "workspace_bytes": limits.workspace_bytes,
            "workspace_inodes": limits.workspace_inodes,
            "denied": {
                purpose: {call: number for call in calls if (number := NUMBERS[call][column]) is not None}
                for purpose, calls in DENIED.items()
            },
            "conditions": [(name, NUMBERS[call][column], arguments) for name, call, arguments in _CONDITIONS],
        }
        inputs = (InputTable(AssetId("probe"), "probe", table, TableFormat.CSV),)
        outcome = await self._outcome("walls", params, _BOX_SECONDS, inputs)
        try:
            rows = json.loads(outcome.output.splitlines()[-1])
            return tuple(Probe(str(name), bool(held), str(detail)) for name, held, detail in rows)
        except (ValueError, IndexError, TypeError):
            said = outcome.output[-500:].decode("utf-8", "replace")
            return (Probe("box", False, f"the probe did not finish: {outcome.detail} {said}"),)

    async def memory(self) -> tuple[Probe, ...]:
        outcome = await self._outcome("memory", {}, _BOX_SECONDS)
        held = outcome.failure is Failure.MEMORY_LIMIT
        return (
            Probe("memory: the limit holds", held, f"ended at {self._limits.memory_bytes // MIB} MiB" if held else outcome.detail),
        )

    async def time(self) -> tuple[Probe, ...]:
        outcome = await self._outcome("time", {}, _TIME_PROBE_SECONDS)
        held = outcome.failure is Failure.TIME_LIMIT
        return (Probe("time: the limit holds", held, f"ended after {_TIME_PROBE_SECONDS:g} s" if held else outcome.detail),)
