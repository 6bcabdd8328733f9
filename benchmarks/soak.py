"""Run a real node for ten minutes under random leases, reorgs, RPC faults and kill -9, and compare it with the chain.

    python benchmarks/soak.py [--minutes 10] [--seed N] [--json FILE]
    python benchmarks/soak.py --lies [--liars 1|2] [--minutes 10] [--seed N] [--json FILE]

The node is a process of its own (`python -m pandacea run`, SQLite) between two faulty endpoints of one anvil that mines every second.
Exit status 1, with the differences, when its leases are not what a rebuild from zero and the contract itself say. The same seed draws
the same leases and faults; how they fall together is the machine's.

With --lies a follower in this process, with intervals of a sixtieth, between endpoints that leave logs out of any answer, one at a time
or both together (--liars 2, the default). Exit status 1 when a lease is wrong once an endpoint is honest again, or was usable although
the contract denied it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import structlog

ROOT = Path(__file__).resolve().parents[1]
for place in (ROOT, ROOT / "daemon"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

from tests.soak.lies import LiesReport, soak_with_lies
from tests.soak.soak import SoakReport, soak


def main() -> int:
    """Run one soak and print how it ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--lies", action="store_true", help="endpoints leave logs out, at any reading")
    parser.add_argument("--liars", type=int, choices=(1, 2), default=2, help="with --lies: how many may lie at one time")
    parser.add_argument("--json", type=Path, help="write the report here")
    parsed = parser.parse_args()
    seed = secrets.randbelow(10**6) if parsed.seed is None else parsed.seed
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # of the follower that rebuilds
    environment = Path(os.environ.get("PANDACEA_TEST_ENVIRONMENT", ROOT / ".sandbox"))
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    _print(f"seed {seed}, {parsed.minutes:g} minutes; the node's folder: {folder}")
    if parsed.lies:
        lies = asyncio.run(soak_with_lies(seed, parsed.minutes * 60, parsed.liars, folder, _print))
        return _verdict(lies, [*lies.unsafe, *lies.differences], parsed.json, folder)
    try:
        report = asyncio.run(soak(seed, parsed.minutes * 60, folder / "node", environment, _print))
    except AssertionError as problem:
        _print(f"FAILED with seed {seed}; the node's log is kept: {folder / 'node' / 'node.log'}\n{problem}")
        return 1
    return _verdict(report, report.differences, parsed.json, folder)


def _verdict(report: SoakReport | LiesReport, wrong: list[str], file: Path | None, folder: Path) -> int:
    if file is not None:
        file.write_text(json.dumps(asdict(report), indent=2) + "\n")
    for name, value in asdict(report).items():
        if name not in {"differences", "unsafe"}:
            _print(f"  {name}: {round(value, 2) if isinstance(value, float) else value}")
    if wrong:
        _print(f"FAILED with seed {report.seed}: {len(wrong)} differences; the node's folder is kept: {folder}")
        for line in wrong[:20]:
            _print(f"  {line}")
        return 1
    _print("The node agrees with a rebuild from zero and with the contract.")
    shutil.rmtree(folder)
    return 0


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
