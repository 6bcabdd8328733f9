"""A state folder belongs to one node."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

from tests.journeys.conftest import pandacea, system


def test_a_second_node_on_a_state_folder_is_refused(tmp_path: Path) -> None:
    """It says where, and touches nothing: the first one's sandboxes and results would look like leftovers to it."""
    with system(tmp_path, "bubblewrap") as built:
        (tmp_path / "config.yaml").write_text(json.dumps(built.config))
        state = tmp_path / "state"
        state.mkdir(mode=0o700)
        with (state / "node.lock").open("w") as first:
            fcntl.flock(first, fcntl.LOCK_EX)
            done = pandacea("run", "--config", str(tmp_path / "config.yaml"))
    assert done.returncode == 1
    assert f"Another node runs on {state}" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in state.iterdir()] == ["node.lock"]
