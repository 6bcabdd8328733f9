"""Bare machines are made with this machine's own pip settings, and only by root; the run itself is `make fresh`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fresh import bare_machines
from tests.prerequisites import ROOT


def test_pip_settings_that_name_files_are_mounted_and_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of wheels is seen beneath /machine, an index on disk with the folder above it, where its files are; addresses stay."""
    wheels, index = tmp_path / "wheels", tmp_path / "mirror" / "simple"
    wheels.mkdir()
    index.mkdir(parents=True)
    settings = tmp_path / "pip.conf"
    settings.write_text(f"[global]\nfind-links = {wheels}\nindex-url = https://index.example/simple\ntimeout = 7\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"file://{index} https://more.example/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    variables, mounts = bare_machines.machine_pip_settings()
    assert variables["PIP_INDEX_URL"] == "https://index.example/simple"
    assert variables["PIP_TIMEOUT"] == "7"
    assert variables["PIP_FIND_LINKS"] == f"/machine{wheels}"
    assert variables["PIP_EXTRA_INDEX_URL"] == f"file:///machine{index} https://more.example/simple"
    assert mounts[wheels] == Path(f"/machine{wheels}")
    assert mounts[index.parent] == Path(f"/machine{index.parent}")


def test_pip_settings_that_name_places_to_write_are_not_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine keeps its own cache and installs where it is told."""
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path))
    variables, mounts = bare_machines.machine_pip_settings()
    assert not {"PIP_CACHE_DIR", "PIP_TARGET"} & variables.keys()
    assert tmp_path not in mounts


def test_who_is_not_root_is_told_what_to_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """And the status is not 0: nothing was proved."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sys, "argv", ["bare_machines.py"])
    assert bare_machines.main() == 2
    assert "sudo make fresh" in capsys.readouterr().out


def test_a_commands_failure_holds_its_last_lines(tmp_path: Path) -> None:
    """What failed inside a machine is shown outside, without a search for its log."""
    with pytest.raises(bare_machines.StepFailed, match=r"status 3.*\n.*no such wheel"):
        bare_machines.run(["sh", "-c", "echo no such wheel >&2; exit 3"], tmp_path / "log")
    assert bare_machines.run(["echo", "again"], tmp_path / "log") == "again\n"


def test_a_run_that_is_killed_takes_its_machine_along(tmp_path: Path) -> None:
    """SIGKILL for the runner ends every process in the machine's namespaces, and the mounts with them: nobody is left to clean up."""
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    # Of a user namespace too, so that a plain user can play it.
    inside = ["--user", "--map-root-user", "sh", "-c", f"exec >{alive}; echo up; sleep 600 & wait"]
    runner = "import sys; from tests.fresh.bare_machines import *; run([*NAMESPACES, *sys.argv[2:]], Path(sys.argv[1]))"
    with subprocess.Popen([sys.executable, "-c", runner, str(tmp_path / "log"), *inside], cwd=ROOT) as process:
        with alive.open() as seen:
            assert seen.readline() == "up\n"
            process.kill()
            assert seen.read() == ""  # the end of the file: no process in the machine holds it any more


def test_a_row_that_cannot_be_played_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped suite is no table without rows that counts as success."""
    monkeypatch.setattr(sys, "argv", ["bare_machines.py", "--rows", "trixi:root"])
    with pytest.raises(SystemExit, match="2"):
        bare_machines.main()
    assert "'trixi:root' is no row" in capsys.readouterr().err
