"""Run a script outside a sandbox as the guest runs it inside, for a rehearsal on mock rows at home. Nothing is confined: only for own scripts.

`python .../guest/run_local.py JOB.json`, with any Python that has pandas; it needs nothing else of this distribution. The job is an object:

    {"code": PATH, "workspace": FOLDER, "tables": {VARIABLE: PATH}, "params": JSON, "uploads": {NAME: PATH}, "seed": INTEGER, "report": PATH}

The first two are required. Tables are .csv, .parquet or .arrow files. The script starts in `workspace`, a folder that exists and is empty: what it
leaves there besides `in/` are its artifacts. Output goes to stdout and stderr, the exit status is the script's, and `report` gets JSON with
`error` (null, or `type`, `line` and `message` as a node would report them) and `artifacts`, sorted names. `/workspace` is the folder's name in
a sandbox only; `in/NAME` means the same in both.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

ENVIRONMENT: Final = {
    "PYTHONHASHSEED": "0",
    "MPLBACKEND": "Agg",
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"),
}
"""Variables that a sandbox sets and that change a script's numbers."""
CAPS: Final = {"artifact_count": 256, "artifact_bytes": 64 * 1024 * 1024, "artifacts_bytes": 256 * 1024 * 1024, "pids": 64}
"""A node's default limits: for figures that were left open, and for pools."""


class _Report:
    """Takes the place of the supervisor's socket."""

    def __init__(self, failed: bytes) -> None:
        self._failed = failed
        self.error: dict[str, Any] | None = None

    def send(self, message: bytes, /) -> None:
        if message[:1] == self._failed:
            self.error = {name: json.loads(message[1:])[name] for name in ("type", "line", "message")}


def main(path: str) -> None:
    """Run the job in the file `path` and exit with the script's status."""
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        line = [sys.executable, "-P", str(Path(__file__).resolve()), os.path.abspath(path)]
        # The hash seed counts at the start only.
        os.execve(line[0], line, {**os.environ, **ENVIRONMENT})  # noqa: S606 - this very program, by a list of arguments
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    load_frame = importlib.import_module("guest.load_frame")
    script_process = importlib.import_module("guest.script_process")
    sys.path.pop(0)
    job: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    workspace = os.path.realpath(job["workspace"])
    frames = {
        name: load_frame.load_frame(os.open(table, os.O_RDONLY), Path(table).suffix[1:])
        for name, table in job.get("tables", {}).items()
    }
    code = Path(job["code"]).read_text(encoding="utf-8")
    report_path = os.path.abspath(job["report"]) if job.get("report") else None
    _place_uploads(job.get("uploads", {}), Path(workspace, "in"))
    os.chdir(workspace)
    report = _Report(script_process.FAILED)
    settings = {"seed": job.get("seed", 0), "threads": 1, "caps": CAPS}
    status = script_process.execute_script(code, job.get("params", {}), frames, report, settings, workspace)
    if report_path is not None:
        found = {"error": report.error, "artifacts": _list_artifacts(Path(workspace))}
        Path(report_path).write_text(json.dumps(found) + "\n", encoding="utf-8")
    os._exit(status)


def _place_uploads(uploads: dict[str, str], folder: Path) -> None:
    for name, source in uploads.items():
        folder.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / name)


def _list_artifacts(workspace: Path) -> list[str]:
    found = [path.relative_to(workspace) for path in workspace.rglob("*") if path.is_file()]
    return sorted(path.as_posix() for path in found if path.parts[0] != "in")


if __name__ == "__main__":
    main(sys.argv[1])
