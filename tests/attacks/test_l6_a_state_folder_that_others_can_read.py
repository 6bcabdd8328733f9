"""A local user reads scripts, held outputs and commitment keys in a state folder that was made with mode 0755."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from pandacea.app import factories
from pandacea.config.example import write_example
from pandacea.errors import Broken
from tests.prerequisites import ROOT


def mode_of(path: Path) -> int:
    """Read a file's permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_folder_that_is_open_to_others_is_closed(tmp_path: Path) -> None:
    """The node takes the rights of group and others away before it writes into the folder."""
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    state.chmod(0o755)
    async with factories.lock_state_dir(state):
        assert mode_of(state) == 0o700


async def test_a_folder_that_cannot_be_closed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that belongs to somebody else, or lies where modes are not kept: the sentence names the command."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o755)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    with pytest.raises(Broken, match="chmod 700"):
        async with factories.lock_state_dir(state):
            pass


def test_what_the_commands_write_is_for_their_user_alone(tmp_path: Path) -> None:
    """Whatever umask the caller has: every command of the node works with 077."""
    look = "import os\nfrom pandacea.cli.main import main\nmain(['init', '--directory', 'made'])\nprint(oct(os.umask(0)))"
    done = subprocess.run(
        [sys.executable, "-c", look],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "daemon")},
        preexec_fn=lambda: os.umask(0) and None,
    )
    assert done.stdout.splitlines()[-1] == "0o77"
    assert mode_of(tmp_path / "made" / "data") == 0o700


def test_init_makes_a_data_folder_for_its_user_alone(tmp_path: Path) -> None:
    """The Earner's tables will lie there."""
    before = os.umask(0)
    try:
        write_example(tmp_path / "made")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "made" / "data") == 0o700
