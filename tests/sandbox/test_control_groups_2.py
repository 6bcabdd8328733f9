"""Control groups of version 2, on an emulated machine of the test's own: whatever version, kernel or processor this one has."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.engine import prepare
from tests.prerequisites import ROOT, skip_or_fail
from tests.sandbox.emulated_machine import run

JOBS = {
    "memory-limit": "import os, time\nif os.fork() == 0:\n    hoard = bytearray(b'1') * (700 << 20)\nos.wait()\ntime.sleep(600)",
    "process-limit": "import threading, time\nwhile True:\n    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
}
"""How a run must end, and its script: memory taken by a child whose parent would go on; threads without end."""
EMULATED = 300.0  # seconds; an import there takes many times as long as here


@pytest.fixture(scope="session")
def kernel() -> Path:
    """The kernel to emulate a machine with."""
    try:
        return prepare.kernel()
    except prepare.CannotPrepareError as error:
        skip_or_fail(f"no kernel: {error}")


@pytest.mark.timeout(EMULATED + 300)  # the kernel may have to be downloaded
def test_limits_bite_in_a_delegated_group(environment: Path, kernel: Path, tmp_path: Path) -> None:
    """The node creates its group, moves into a leaf beside its sandboxes, and each sandbox's memory and processes are limited there.

    The self-test runs in sandboxes with a bubblewrap process of their own, the jobs in forks of a zygote. A kill for memory in a child ends
    the whole run; afterwards no sandbox's group is left.
    """
    jobs = [{"name": end, "code": code, "table": False, "limits": {"time_seconds": 120.0}} for end, code in JOBS.items()]
    command = ["env", f"PYTHONPATH={ROOT / 'daemon'}:{ROOT}", "PYTHONDONTWRITEBYTECODE=1", sys.executable]
    # Importing next to nothing ahead: these jobs need no more.
    command += ["-m", "tests.hostile.as_user", "bubblewrap-warm", str(environment), "json"]
    out, groups = run(command, json.dumps(jobs), kernel, tmp_path, EMULATED)
    told = json.loads(out)
    assert told["warnings"] == [], "control groups limit the sandboxes, no polling does"
    assert [probe for probe in told["probes"] if not probe["passed"]] == []
    assert {end: outcome["failure"] for end, outcome in told["outcomes"].items()} == {end: end for end in JOBS}
    assert told["left_behind"] == []
    assert groups == ["/sys/fs/cgroup/service", "/sys/fs/cgroup/service/pandacea-node"]
