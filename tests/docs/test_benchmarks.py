"""Every benchmark is a command."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.prerequisites import ROOT

COMMANDS = sorted(file.name for file in (ROOT / "benchmarks").glob("*.py") if "argparse" in file.read_text(encoding="utf-8"))


def test_the_benchmarks_are_found() -> None:
    """Those that the documents name."""
    assert {"api.py", "follow.py", "sandbox.py", "settle.py"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_says_how_it_is_used(name: str) -> None:
    """Started as the documents say it, it does something."""
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}", "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout[:6]) == (0, "usage:"), done.stderr
