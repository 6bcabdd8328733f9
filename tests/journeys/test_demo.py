"""The demo is the first thing a newcomer sees: it must hold."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.parts import ROOT, missing
from tests.sandbox.leftovers import processes


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the story."""
    if not (ROOT / ".sandbox" / "bin" / "python").exists():
        missing("no sandbox environment; run: make setup")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=200)


def test_every_step_of_the_story_holds(sandbox: str) -> None:
    """Exit status 0, the hash read back from the chain, and no process left behind."""
    done = demo("--sandbox", sandbox)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "committedResult = 0x" in done.stdout
    assert "Every step held." in done.stdout
    assert processes(Path(tempfile.gettempdir(), "pandacea-demo-")) == {}


def test_the_story_runs_on_a_table_of_ones_own(tmp_path: Path) -> None:
    """`make demo ARGS="--csv FILE --features a,b --label y"`."""
    table = tmp_path / "mine.csv"
    table.write_text("a,b,name,y\n" + "".join(f"{n},{n % 3},p{n},{2 * n}\n" for n in range(60)))
    done = demo("--csv", str(table), "--features", "a,b", "--label", "y", "--sandbox", "bubblewrap")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trained on 60 rows x 2 features" in done.stdout


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    """One sentence, with the columns that are."""
    table = tmp_path / "mine.csv"
    table.write_text("a,b,y\n1,2,3\n")
    done = demo("--csv", str(table), "--features", "a,c", "--label", "y", "--sandbox", "bubblewrap")
    assert done.returncode == 1
    assert "no column c; it has: a, b, y" in done.stderr
