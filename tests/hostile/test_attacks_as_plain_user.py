"""The same hostile scripts where bubblewrap is started by a plain user: no root, no control group, the node's own kernel uid."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pandacea.domain.outcome import Failure
from tests.hostile.attack import Attack
from tests.hostile.attacks.every import ATTACKS
from tests.prerequisites import ROOT, skip_or_fail
from tests.sandbox.harness import USER_MODES, python_for_everyone

pytestmark = pytest.mark.timeout(900)  # the first test of a mode runs them all
_UID = 54_321
_SECONDS = 900
WEAKER = {
    "capabilities": "the uid is mapped from the node's, so the bounding set of that one-uid namespace stays, with nothing in it to use",
}
"""Attacks that say less here, and why."""


@pytest.fixture(scope="session")
def everyones(environment: Path) -> Iterator[Path]:
    """A world-readable environment on the system's Python."""
    if os.geteuid() != 0:
        yield environment
        return
    if not Path("/usr/bin", f"python3.{sys.version_info.minor}").exists():
        skip_or_fail("the system has no Python of this version to run a plain user's sandboxes with")
    folder = Path(tempfile.mkdtemp(prefix="pandacea-user-", dir=environment.parent))
    folder.chmod(0o755)
    yield python_for_everyone(environment, folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session", params=USER_MODES)
def told(request: pytest.FixtureRequest, everyones: Path) -> dict[str, Any]:
    """All attacks, run once for each mode."""
    jobs = [
        {"name": a.name, "code": a.script(), "table": a.table, "limits": {"time_seconds": a.seconds, **a.limits}} for a in ATTACKS
    ]
    user: dict[str, Any] = {"user": _UID, "group": _UID, "extra_groups": []} if os.geteuid() == 0 else {}
    python = "/usr/bin/python3" if os.geteuid() == 0 else sys.executable
    done = subprocess.run(
        [python, "-m", "tests.hostile.as_user", request.param, str(everyones)],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT / 'daemon'}:{ROOT}",
            "TMPDIR": "/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        **user,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_self_test_holds(told: dict[str, Any]) -> None:
    """Every probe holds without root, and what is weaker is said."""
    assert [probe for probe in told["probes"] if not probe["passed"]] == []
    for weaker in ("no control group", "own kernel uid"):
        assert any(weaker in warning for warning in told["warnings"]), weaker
    assert told["people_unchanged"]


def test_nothing_is_left(told: dict[str, Any]) -> None:
    """After all attacks: no process, no mount, no folder of a sandbox."""
    assert told["left_behind"] == []


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack(told: dict[str, Any], attack: Attack, record_property: Callable[[str, object], None]) -> None:
    """The run ends as promised."""
    outcome = told["outcomes"][attack.name]
    record_property("ended", outcome["failure"] or "completed")
    shown = f"{attack.name} must hold that {attack.promise}; {outcome['failure']}: {outcome['detail']}\n{outcome['output'][-3000:]}"
    assert (Failure(outcome["failure"]) if outcome["failure"] else None) in attack.ends, shown
    broken = [line for line in outcome["output"].splitlines() if line.startswith("BROKEN")]
    if attack.name not in WEAKER:
        assert not broken, shown
    assert attack.detail in outcome["detail"], shown
    assert outcome["code_started"] is attack.charged, shown
