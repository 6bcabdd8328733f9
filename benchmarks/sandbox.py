"""Measure how long a job takes in a sandbox, as a ratio to `python script.py` with the same packages and no isolation.

    python benchmarks/sandbox.py [--json FILE] [--direct] [--runs N]

The job is examples/federated_learning_script.py on a 1,000-row table. By default a real node is started for each kind of sandbox and a
signed HTTP request is timed until its response is in hand; `--direct` times the sandbox's own port instead (no HTTP, no database).
One request at a time, each when a warm sandbox is ready; `jobs/s` keeps two workers busy instead.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "daemon"), str(ROOT)]

from pandacea.domain.limits import MIB, Limits
from pandacea.sandbox.settings import PRELOAD
from tests.engine import prepare
from tests.sandbox.harness import IMAGE, close_laboratory, open_laboratory

LIMITS: Final = Limits(memory_bytes=1024 * MIB, workspace_bytes=64 * MIB, tmp_bytes=32 * MIB, cpus=2.0)
SCRIPT: Final = (ROOT / "examples" / "federated_learning_script.py").read_bytes()
PARAMS: Final = "{}"
TARGETS: Final = {
    "docker_warm_p50_vs_bare": 0.06,
    "docker_warm_p99_vs_bare": 0.15,
    "docker_cold_vs_bare": 1.25,
    "bwrap_warm_p50_vs_bare": 0.06,
    "bwrap_cold_vs_bare": 1.25,
    "table_500mb_ms": 10.0,
    "idle_slot_mb": 300.0,
}
BARE: Final = """
import runpy, subprocess, sys, time
started = time.perf_counter()
data, work = sys.argv[1:]
subprocess.run([sys.executable, "-c", '''
import sys
import pandas as pd
data = sys.argv[1]
scope = {"params": {}, "pandacea_progress": lambda done, total: None}
scope["features"] = pd.read_csv(f"{data}/features.csv")
scope["labels"] = pd.read_csv(f"{data}/labels.csv")
exec(open(f"{data}/script.py").read(), scope)
''', data], check=True, cwd=work, stdout=subprocess.DEVNULL)
print(time.perf_counter() - started)
"""


def write_tables(folder: Path) -> dict[str, Path]:
    """Write a table of 1,000 x 2 and its labels."""
    features, labels = folder / "features.csv", folder / "labels.csv"
    features.write_text("a,b\n" + "".join(f"{n % 97 / 97},{n % 89 / 89}\n" for n in range(1000)))
    labels.write_text("y\n" + "".join(f"{2 * (n % 97) / 97 - (n % 89) / 89}\n" for n in range(1000)))
    return {"features": features, "labels": labels}


def time_bare_script(environment: Path, folder: Path, runs: int) -> tuple[float, float]:
    """Time the plain script, in the image and with the bubblewrap environment: median seconds of `runs`."""
    data, work = folder / "bare", folder / "work"
    for made in (data, work):
        made.mkdir(mode=0o755, exist_ok=True)
    write_tables(data)
    (data / "script.py").write_bytes(SCRIPT)
    threads = ["OMP_NUM_THREADS=1", "OPENBLAS_NUM_THREADS=1"]
    image = ["docker", "run", "--rm", "--network=none", "-v", f"{data}:/bare:ro", *(f"-e{name}" for name in threads), IMAGE]
    image += ["python3", "-c", BARE, "/bare", "/tmp"]
    here = ["env", *threads, f"TMPDIR={work}", str(environment / "bin" / "python"), "-c", BARE, str(data), str(work)]

    def median(line: list[str]) -> float:
        return statistics.median(
            float(subprocess.run(line, capture_output=True, text=True, check=True).stdout) for _ in range(runs)
        )

    return median(image), median(here)


async def time_runs(once: Callable[[], Awaitable[None]], ready: Callable[[], Awaitable[None]], runs: int) -> list[float]:
    """Time runs one after the other, in seconds, each when everything is ready; the first is discarded."""
    seconds = []
    for _ in range(runs + 1):
        await ready()
        started = time.perf_counter()
        await once()
        seconds.append(time.perf_counter() - started)
    return seconds[1:]


async def time_sandbox_port(mode: str, environment: Path, folder: Path, runs: int) -> list[float]:
    """Time the sandbox's own port, without HTTP and database."""
    laboratory = await open_laboratory(mode, environment, limits=LIMITS, preload=PRELOAD)
    try:
        inputs = write_tables(folder)

        async def once() -> None:
            outcome = await laboratory.run(SCRIPT, tables=inputs, params=PARAMS, limits=LIMITS)
            assert outcome.failure is None, outcome

        async def ready() -> None:
            while laboratory.sandbox.pool.idle_count < laboratory.pool:  # a refill in the background would be measured too
                await asyncio.sleep(0.05)

        return await time_runs(once, ready, runs)
    finally:
        await close_laboratory(laboratory)


def time_http_requests(mode: str, folder: Path, runs: int, pause: float) -> list[float]:
    """Time signed requests to a real node (embedded chain, SQLite), response decoded; `pause` seconds before each of a warm kind."""
    from tests.journeys.conftest import FEATURES, INPUTS, LABELS, system

    kind, warm = mode.split("-", maxsplit=1)[0], mode.endswith("warm")
    limits = {"memory_mb": 1024, "workspace_mb": 64, "tmp_mb": 32, "cpus": 2.0}
    with system(folder, kind) as built:
        made = write_tables(folder)
        made["features"].replace(folder / "data" / f"{FEATURES}.csv")
        made["labels"].replace(folder / "data" / f"{LABELS}.csv")
        built.config["privacy"] |= {"pool_size": 2 if warm else 0, "limits": limits}
        built.start()
        lease = built.lease(computations=runs + 10)
        script = folder / "script.py"
        script.write_bytes(SCRIPT)
        client = built.client()

        async def once() -> None:
            answer = await asyncio.to_thread(client.execute_computation, lease, str(script), INPUTS)
            assert answer["success"], answer

        async def ready() -> None:
            await asyncio.sleep(pause if warm else 0.1)

        return asyncio.run(time_runs(once, ready, runs))


async def measure_large_table(environment: Path, folder: Path) -> tuple[float, float]:
    """Measure the ms until 2.6 million x 11 numbers (500 MB as CSV) are a DataFrame, and the MB that changing one column costs."""
    path = folder / "large.arrow"
    subprocess.run([str(environment / "bin" / "python"), "-c", _LARGE, str(path)], check=True)
    laboratory = await open_laboratory("bubblewrap-warm", environment, limits=LIMITS, preload=PRELOAD)
    try:
        milliseconds, grown = [], 0.0
        for _ in range(5):
            outcome = await laboratory.run(_TOUCH, tables={"large": path}, limits=LIMITS)
            assert outcome.failure is None, outcome
            milliseconds.append(outcome.usage["load_seconds"] * 1000)
            grown = float(outcome.output.split()[-1])
        return statistics.median(milliseconds), grown
    finally:
        await close_laboratory(laboratory)


_LARGE: Final = """
import sys, numpy as np, pyarrow as pa
random = np.random.default_rng(1)
batch = pa.record_batch({f"c{n}": random.random(2_600_000) for n in range(11)})
with pa.OSFile(sys.argv[1], "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
    writer.write_batch(batch)
"""
_TOUCH: Final = """
def anonymous():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith(("Anonymous", "Pss_File"))) / 1024
before = anonymous()
large.loc[:, "c0"] *= 2.0
assert large.shape == (2_600_000, 11)
print(anonymous() - before)
"""


async def measure_idle_slot(environment: Path) -> float:
    """Measure the MB of one waiting warm container (anonymous memory; mapped libraries are page cache, shared by all)."""
    laboratory = await open_laboratory("docker-warm", environment, limits=LIMITS, pool=1, preload=PRELOAD)
    try:
        await laboratory.wait_until_warm()
        name = subprocess.run(
            ["docker", "ps", "-q", "--no-trunc", "--filter", f"label=org.pandacea.instance={laboratory.instance}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[0]
        pid = subprocess.run(
            ["docker", "inspect", "-f", "{{.State.Pid}}", name], capture_output=True, text=True, check=True
        ).stdout.strip()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Anonymous:")) / 1024
    finally:
        await close_laboratory(laboratory)


async def measure_throughput(mode: str, environment: Path, folder: Path, seconds: float) -> float:
    """Measure jobs per second with two workers, one sandbox for each job."""
    laboratory = await open_laboratory(mode, environment, limits=LIMITS, preload=PRELOAD)
    try:
        inputs, done = write_tables(folder), 0
        await laboratory.wait_until_warm()
        started = time.perf_counter()

        async def worker() -> None:
            nonlocal done
            while time.perf_counter() - started < seconds:
                job = laboratory.job(SCRIPT, tables=inputs, params=PARAMS, limits=LIMITS)
                outcome = await laboratory.sandbox.run_job(job, lambda _: None)
                assert outcome.failure is None, outcome
                done += 1

        await asyncio.gather(worker(), worker())
        return done / (time.perf_counter() - started)
    finally:
        await close_laboratory(laboratory)


def percentile(values: list[float], share: float) -> float:
    """Compute the nearest-rank percentile of values."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything in one run."""
    environment = prepare.environment()
    prepare.image()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="pandacea-bench-") as name:
        folder = Path(name)
        time_bare_script(environment, folder, 1)  # the page cache is cold only once
        for mode, runs in (
            ("docker-cold", 3),
            ("bubblewrap-cold", 3),
            ("docker-warm", arguments.runs),
            ("bubblewrap-warm", arguments.runs),
        ):
            seconds = (
                asyncio.run(time_sandbox_port(mode, environment, folder, runs))
                if arguments.direct
                else time_http_requests(mode, folder / mode, runs, arguments.pause)
            )
            in_image, here = time_bare_script(
                environment, folder, 3
            )  # beside what it is compared with: a shared machine changes its pace
            reference = in_image if mode.startswith("docker") else here
            kind = mode.replace("bubblewrap", "bwrap").replace("-", "_")
            p50, p99 = statistics.median(seconds) / reference, percentile(seconds, 0.99) / reference
            result |= (
                {f"{kind}_vs_bare": p50} if mode.endswith("cold") else {f"{kind}_p50_vs_bare": p50, f"{kind}_p99_vs_bare": p99}
            )
            middle = statistics.median(seconds) * 1000
            print(f"{mode:16} median {middle:8.1f} ms = {p50:.3f} x bare ({reference:.2f} s), p99 {p99:.3f} x, {runs} runs")
        result["table_500mb_ms"], grown = asyncio.run(measure_large_table(environment, folder))
        print(
            f"500 MB table: {result['table_500mb_ms']:.2f} ms to a DataFrame; changing one of 11 columns grew the job by {grown:.0f} MB"
        )
        result["idle_slot_mb"] = asyncio.run(measure_idle_slot(environment))
        for mode, key in (
            ("docker-warm", "docker_jobs_per_s"),
            ("bubblewrap-warm", "bwrap_jobs_per_s"),
            ("docker-cold", "cold_jobs_per_s"),
        ):
            result[key] = asyncio.run(measure_throughput(mode, environment, folder, arguments.seconds))
    return result


def main() -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--direct", action="store_true", help="time the sandbox's port instead of HTTP")
    parser.add_argument("--runs", type=int, default=20, help="warm runs of each kind")
    parser.add_argument("--pause", type=float, default=6.0, help="seconds before each warm request: so long a refill may take")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each throughput run")
    arguments = parser.parse_args()
    result = measure(arguments)
    print(f"\n{'figure':28} {'measured':>10} {'target':>8}")
    for key, value in result.items():
        target = TARGETS.get(key)
        verdict = "" if target is None else ("  met" if value <= target else "  MISSED")
        print(f"{key:28} {value:10.3f} {'' if target is None else target:>8}{verdict}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({key: round(value, 4) for key, value in result.items()}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
