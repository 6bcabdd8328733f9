"""Real sandboxes for tests: every backend and mode by one name, and one call that runs a script to its outcome."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pandacea.domain.ids import AssetId, ComputationId
from pandacea.domain.limits import MIB, Limits
from pandacea.domain.outcome import Outcome
from pandacea.flows.ports import InputTable, SandboxEvent, SandboxIdentity, SandboxJob, TableFormat
from pandacea.sandbox.bubblewrap.backend import BubblewrapSandbox
from pandacea.sandbox.bubblewrap.cgroups import NodeCgroup
from pandacea.sandbox.service import SandboxService
from pandacea.sandbox.settings import PRELOAD, BubblewrapSettings, PoolSettings
from tests.run_id import instance_name

IMAGE = "pandacea/pysyft-datasite:latest"
MODES = ("docker-cold", "docker-warm", "bubblewrap-cold", "bubblewrap-warm")
USER_MODES = ("bubblewrap-user-cold", "bubblewrap-user-warm")
"""bubblewrap started by a plain user: in a process of its own, see tests/hostile/as_user.py."""
LIMITS = Limits(
    memory_bytes=640 * MIB, workspace_bytes=64 * MIB, tmp_bytes=16 * MIB, time_seconds=60.0, pids=64, output_bytes=256 * 1024
)
"""Small enough that breaking them is quick, large enough for the supervisor."""
LIGHT = ("numpy", "pandas")
"""What warm containers of the tests import ahead: importing torch for each of some hundred jobs would take most of the time."""


@dataclass
class Laboratory:
    """One open sandbox and a folder of its own."""

    mode: str
    instance: str
    sandbox: SandboxService
    folder: Path
    identity: SandboxIdentity
    pool: int
    runs: int = 0
    events: list[SandboxEvent] = field(default_factory=list)

    async def run(
        self,
        code: str | bytes,
        *,
        limits: Limits | None = None,
        tables: Mapping[str, Path] | None = None,
        params: str = "null",
        uploads: Mapping[str, Path] | None = None,
        seed: int = 7,
        threads: int = 1,
    ) -> Outcome:
        """Run a script; `tables` maps variable names to files whose suffix tells the format. `events` are those of this run."""
        job = self.job(code, limits=limits, tables=tables, params=params, uploads=uploads, seed=seed, threads=threads)
        self.events = []
        await self.wait_until_warm()
        return await self.sandbox.run_job(job, self.events.append)

    def job(
        self,
        code: str | bytes,
        *,
        limits: Limits | None = None,
        tables: Mapping[str, Path] | None = None,
        params: str = "null",
        uploads: Mapping[str, Path] | None = None,
        seed: int = 7,
        threads: int = 1,
    ) -> SandboxJob:
        """Make a job with a results folder of its own."""
        self.runs += 1
        results = self.folder / f"results-{self.runs}"
        results.mkdir()
        inputs = tuple(
            InputTable(AssetId(f"asset-{name}"), name, path, TableFormat(path.suffix[1:])) for name, path in (tables or {}).items()
        )
        return SandboxJob(
            computation_id=ComputationId(f"0x{self.runs:064x}"),
            code=code.encode() if isinstance(code, str) else code,
            params=params.encode(),
            inputs=inputs,
            uploads=uploads or {},
            limits=limits or LIMITS,
            seed=seed,
            threads=threads,
            results_dir=results,
        )

    async def wait_until_warm(self) -> None:
        """Wait until a warm instance is ready, where the mode is warm. A failure of the pool fails the test."""
        async with asyncio.timeout(120):
            while self.pool and not self.sandbox.pool.idle_count:
                assert self.sandbox.pool.last_failure is None, self.sandbox.pool.last_failure
                await asyncio.sleep(0.01)


async def open_laboratory(
    mode: str,
    environment: Path,
    *,
    limits: Limits = LIMITS,
    pool: int = 2,
    preload: tuple[str, ...] | None = None,
    name: str = "test",
    cgroups: bool | None = None,
    image: str = IMAGE,
) -> Laboratory:
    """Open a sandbox of one mode; close it with `close_laboratory`. `cgroups` None: where this machine lets one be made."""
    folder = Path(tempfile.mkdtemp(prefix=f"pandacea-{mode}-"))
    size = pool if mode.endswith("warm") else 0
    preload = preload or (PRELOAD if mode == "bubblewrap-warm" else LIGHT)
    settings = PoolSettings(size=size, limits=limits, preload=preload)
    instance = instance_name(f"{name}-{mode}")
    sandbox: SandboxService
    if mode.startswith("docker"):
        from pandacea.sandbox.docker.backend import DockerSandbox
        from pandacea.sandbox.settings import DockerSettings

        sandbox = DockerSandbox(DockerSettings(image, folder / "state", instance, pool=settings))
    else:
        held = NodeCgroup.is_available() if cgroups is None else cgroups
        sandbox = BubblewrapSandbox(BubblewrapSettings(environment, folder / "state", instance, held, settings))
    try:
        identity = await sandbox.start()
    except BaseException:
        shutil.rmtree(folder)
        raise
    return Laboratory(mode, instance, sandbox, folder, identity, size)


async def close_laboratory(laboratory: Laboratory) -> None:
    """Close the sandbox and remove its folder."""
    await laboratory.sandbox.stop()
    shutil.rmtree(laboratory.folder)


def with_caps(**changes: float) -> Limits:
    """The usual limits with some changed."""
    return replace(LIMITS, **changes)  # type: ignore[arg-type]  # each field is an int or a float


def python_for_everyone(environment: Path, folder: Path) -> Path:
    """An environment that a plain user may read: the same packages, run by Debian's own Python of the same version."""
    import json

    system = Path("/usr/bin") / f"python3.{sys.version_info.minor}"
    lock = json.loads((environment / "pandacea-environment.json").read_text())
    lock |= {"interpreter": str(system), "base_prefix": "/usr"}
    made = folder / "environment"
    made.mkdir()
    shutil.copytree(environment / "lib", made / "lib", symlinks=True, copy_function=os.link)
    (made / "pandacea-environment.json").write_text(json.dumps(lock))
    made.chmod(0o755)
    return made


def joined_output(events: Sequence[SandboxEvent]) -> bytes:
    """Return the output that streamed live, in one piece."""
    from pandacea.flows.ports import OutputWritten

    return b"".join(event.data for event in events if isinstance(event, OutputWritten))


def write_converted_table(table: Path, environment: Path, suffix: str) -> Path:
    """The same table as Parquet or as a one-batch Arrow IPC file, made by the environment's own Python: the node has no pandas."""
    target = table.with_suffix("." + suffix)
    code = (
        "import sys, pandas as pd, pyarrow as pa\nframe = pd.read_csv(sys.argv[1])\n"
        "frame.to_parquet(sys.argv[2]) if sys.argv[2].endswith('parquet') else None\n"
        "batch = pa.RecordBatch.from_pandas(frame, preserve_index=False)\n"
        "if sys.argv[2].endswith('arrow'):\n"
        "    with pa.OSFile(sys.argv[2], 'wb') as file, pa.ipc.new_file(file, batch.schema) as writer:\n        writer.write_batch(batch)\n"
    )
    subprocess.run([str(environment / "bin" / "python"), "-c", code, str(table), str(target)], check=True)
    return target
