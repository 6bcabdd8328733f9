"""The guest's own rehearsal at home: the same script, the same numbers, the same words, without a sandbox."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from pandacea.sandbox.guest import run_local
from tests.sandbox.harness import close_laboratory, open_laboratory

SCRIPT = """
import numpy, random, torch
print(int(people.age.sum()), params["k"], open("in/w.txt").read(), random.random(), numpy.random.rand(), float(torch.rand(1)), hash("a"))
open("left.txt", "w").write("x")
import matplotlib.pyplot as plt
plt.plot([1, 2])
"""


def run(environment: Path, tmp_path: Path, code: str, **job: Any) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run a script at home with the environment's Python; what it printed, and the report."""
    (tmp_path / "workspace").mkdir()
    (tmp_path / "script.py").write_text(code)
    job = {
        "code": str(tmp_path / "script.py"),
        "workspace": str(tmp_path / "workspace"),
        "report": str(tmp_path / "report.json"),
        **job,
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    line = [str(environment / "bin" / "python"), run_local.__file__, str(tmp_path / "job.json")]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=100, env={"PATH": "/usr/bin:/bin"})
    return done, json.loads((tmp_path / "report.json").read_text())


async def test_home_and_sandbox_agree(environment: Path, tmp_path: Path, people: Path) -> None:
    """Tables, params, uploads, seed, hash seed, artifacts and figures are those of a bubblewrap sandbox."""
    upload = tmp_path / "w.txt"
    upload.write_text("w")
    options = {"tables": {"people": str(people)}, "params": {"k": 3}, "uploads": {"w.txt": str(upload)}, "seed": 11}
    done, report = run(environment, tmp_path, SCRIPT, **options)
    assert (done.returncode, report["error"]) == (0, None), done.stderr
    assert report["artifacts"] == ["figure-1.png", "left.txt"]
    laboratory = await open_laboratory("bubblewrap-cold", environment)
    try:
        outcome = await laboratory.run(SCRIPT, tables={"people": people}, params='{"k": 3}', uploads={"w.txt": upload}, seed=11)
    finally:
        await close_laboratory(laboratory)
    assert outcome.failure is None, outcome
    assert outcome.output.decode() == done.stdout
    assert [artifact.name for artifact in outcome.artifacts] == report["artifacts"]


def test_an_error_is_reported_as_a_node_would(environment: Path, tmp_path: Path) -> None:
    """Class, line, message with its hint; the traceback shows the script alone."""
    done, report = run(environment, tmp_path, "x = 1\nopen('people.csv')\n")
    assert done.returncode == 1
    assert (report["error"]["type"], report["error"]["line"]) == ("FileNotFoundError", 2)
    assert "hint: a sandbox has no file of yours" in report["error"]["message"]
    assert "guest" not in done.stderr
