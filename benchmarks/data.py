"""Measure how fast a source becomes a table, and a table a frame, beside pandas' own reading of the source.

    python benchmarks/data.py [--megabytes 500] [--environment .sandbox] [--json FILE]

The table is numeric, 11 columns, as wide as the rows of most measurements; a second one has a text, a category-like text and gaps. Each
conversion runs in a real bubblewrap sandbox with the default limits (1 GiB of memory). "Frame" is what a script waits for: opening the
stored table by descriptor, until it is a DataFrame; a sum over one column shows what the first touch costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pandacea.catalogue.sources import open_source
from pandacea.catalogue.table_store import TableStore
from pandacea.domain.limits import Limits
from pandacea.domain.table import Recipe, SourceFormat
from pandacea.sandbox.bubblewrap.backend import BubblewrapSandbox
from pandacea.sandbox.bubblewrap.cgroups import NodeCgroup
from pandacea.sandbox.settings import BubblewrapSettings, PoolSettings

MAKE = """
import sys, numpy as np, pandas as pd
path, size, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rng, written, first = np.random.default_rng(1), 0, True
while written < size:
    rows = 100_000
    data = {f"x{n}": rng.normal(size=rows).round(9) for n in range(10)} | {"y": rng.integers(0, 1000, rows)}
    if kind == "mixed":
        data["x0"] = np.where(rng.random(rows) < 0.1, np.nan, data["x0"])
        data["ward"] = rng.choice(["north", "south", "west"], rows)
        data["note"] = [f"note {n}" for n in rng.integers(0, 10**9, rows)]
    pd.DataFrame(data).to_csv(path, index=False, header=first, mode="w" if first else "a")
    first = False
    import os
    written = os.path.getsize(path)
if kind == "numeric":
    pd.read_csv(path).to_parquet(path.replace(".csv", ".parquet"))
"""
FRAME = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
import pandas as pd, pyarrow
from pandacea.sandbox.guest.load_frame import load_frame
pd.DataFrame({"a": [1.0]}).sum()
best = {}
for _ in range(3):
    start = time.perf_counter()
    if sys.argv[2] == "pandas":
        frame = pd.read_parquet(sys.argv[3]) if sys.argv[3].endswith("parquet") else pd.read_csv(sys.argv[3])
    else:
        frame = load_frame(os.open(sys.argv[3], os.O_RDONLY), "arrow")
    ready = time.perf_counter()
    frame["x1"].sum()
    summed = time.perf_counter()
    took = {"frame_ms": 1e3 * (ready - start), "sum_ms": 1e3 * (summed - ready)}
    best = {name: min(best.get(name, 1e9), value) for name, value in took.items()}
    del frame
print(json.dumps(best))
"""


def run_python(python: str, code: str, *arguments: str) -> str:
    """Run code in the sandbox environment's Python, outside a sandbox."""
    return subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, check=True).stdout


async def convert(sandbox: BubblewrapSandbox, source: Path, form: SourceFormat, folder: Path) -> dict[str, Any]:
    """Convert once, in a sandbox; returns the seconds and the table."""
    tables = TableStore(folder / source.name, sandbox, Limits())
    with open_source(source, source.parent) as file:
        start = time.perf_counter()
        made = await tables.convert_source(file, Recipe(form), "0" * 64, lambda _done, _total: None)
        return {"seconds": time.perf_counter() - start, "table": made.path, "table_bytes": made.size, "rows": made.shape.rows}


async def measure(asked: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Measure every row of the report."""
    python, source_root = str(asked.environment / "bin" / "python"), str(Path(__file__).resolve().parent.parent / "daemon")
    for kind in ("numeric", "mixed"):
        run_python(python, MAKE, str(folder / f"{kind}.csv"), str(asked.megabytes << 20), kind)
    settings = BubblewrapSettings(asked.environment, folder / "box", "benchmark", NodeCgroup.is_available(), PoolSettings(size=0))
    sandbox = BubblewrapSandbox(settings)
    await sandbox.start()
    rows = []
    try:
        for name in ("numeric.csv", "numeric.parquet", "mixed.csv"):
            source = folder / name
            form = SourceFormat(source.suffix[1:])
            done = await convert(sandbox, source, form, folder / "tables")
            ours = json.loads(run_python(python, FRAME, source_root, "ours", str(done["table"])))
            theirs = json.loads(run_python(python, FRAME, source_root, "pandas", str(source)))
            size = source.stat().st_size
            rows.append(
                {"source": name, "megabytes": size >> 20, "rows": done["rows"], "table_megabytes": done["table_bytes"] >> 20}
                | {"convert_seconds": done["seconds"], "convert_mb_per_second": size / done["seconds"] / (1 << 20)}
                | {"frame_ms": ours["frame_ms"], "pandas_ms": theirs["frame_ms"], "times": theirs["frame_ms"] / ours["frame_ms"]}
                | {"sum_ms": ours["sum_ms"], "pandas_sum_ms": theirs["sum_ms"]}
                | {"convert_to_pandas": done["seconds"] * 1000 / theirs["frame_ms"]}
            )
    finally:
        await sandbox.stop()
    return rows


def main() -> int:
    """Measure everything and print the report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=500)
    parser.add_argument("--environment", type=Path, default=Path(os.environ.get("PANDACEA_TEST_ENVIRONMENT", ".sandbox")))
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=asked.folder))
    try:
        rows = asyncio.run(measure(asked, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{'source':<16}{'MB':>6}{'rows':>10}{'convert s':>11}{'MB/s':>7}{'x pandas':>9}"
        f"{'frame ms':>10}{'pandas ms':>11}{'times':>8}{'sum ms':>8}"
    )
    for row in rows:
        print(
            f"{row['source']:<16}{row['megabytes']:>6}{row['rows']:>10}{row['convert_seconds']:>11.1f}{row['convert_mb_per_second']:>7.0f}"
            f"{row['convert_to_pandas']:>9.2f}{row['frame_ms']:>10.2f}{row['pandas_ms']:>11.0f}{row['times']:>8.0f}{row['sum_ms']:>8.1f}"
        )
    print(f"node's own peak: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MiB (it parses nothing)")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
