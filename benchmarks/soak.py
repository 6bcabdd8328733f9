"""Run a real node for ten minutes under random leases, reorgs, RPC faults and kill -9, and compare it with the chain.

    python benchmarks/soak.py [--minutes 10] [--seed N] [--json FILE]

The node is a process of its own (`python -m pandacea run`, SQLite) between two faulty endpoints of one anvil that mines every second.
Exit status 1, with the differences, when its leases are not what a rebuild from zero and the contract itself say. The same seed draws
the same leases and faults; how they fall together is the machine's.
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

from tests.soak.soak import SoakReport, soak


def main() -> int:
    """Run one soak and print how it ended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--json", type=Path, help="write the report here")
    parsed = parser.parse_args()
    seed = secrets.randbelow(10**6) if parsed.seed is None else parsed.seed
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))  # of the follower that rebuilds
    environment = Path(os.environ.get("PANDACEA_TEST_ENVIRONMENT", ROOT / ".sandbox"))
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    _print(f"seed {seed}, {parsed.minutes:g} minutes; the node's folder: {folder}")
    try:
        report = asyncio.run(soak(seed, parsed.minutes * 60, folder / "node", environment, _print))
    except AssertionError as problem:
        _print(f"FAILED with seed {seed}; the node's log is kept: {folder / 'node' / 'node.log'}\n{problem}")
        return 1
    if parsed.json is not None:
        parsed.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    return _verdict(report, folder)


def _verdict(report: SoakReport, folder: Path) -> int:
    for name, value in asdict(report).items():
        if name != "differences":
            _print(f"  {name}: {round(value, 2) if isinstance(value, float) else value}")
    if report.differences:
        _print(f"FAILED with seed {report.seed}: {len(report.differences)} differences; the node's folder is kept: {folder}")
        for line in report.differences[:20]:
            _print(f"  {line}")
        return 1
    _print("The node agrees with a rebuild from zero and with the contract.")
    shutil.rmtree(folder)
    return 0


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
