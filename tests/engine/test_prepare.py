"""The preparation of an engine: with one that answers, with none, with one that is down, and where none may be started.

Commands that stand in for Docker's play each machine; that a real engine is prepared, every test of a Docker sandbox shows.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine import prepare

CLIENT = "#!/bin/sh\n[ -e {folder}/engine ]\n"
"""Succeeds while an engine runs."""
SERVER = '#!/bin/sh\necho "$*" >> {folder}/started\n{refuses}\ntouch {folder}/engine\nexec sleep 60\n'


class FakeMachine:
    """What commands it has, and what was done on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir()
        self.command("docker", CLIENT.format(folder=folder))

    def command(self, name: str, script: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(script)
        path.chmod(0o755)

    @property
    def started(self) -> list[str]:
        """The arguments of each engine that was started."""
        path = self.folder / "started"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """Root's, without systemd, with an engine that is installed and down."""
    made = FakeMachine(tmp_path)
    made.command("dockerd", SERVER.format(folder=tmp_path, refuses=""))
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(prepare, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(prepare, "SYSTEMD", tmp_path / "no-systemd")
    monkeypatch.setattr(prepare, "install", lambda what: None)
    return made


@pytest.fixture(autouse=True)
def _ended(machine: FakeMachine, capsys: pytest.CaptureFixture[str]) -> object:
    """End what was started, by the very words that say how."""
    yield
    for line in capsys.readouterr().err.splitlines():
        if "to end it: kill " in line:
            pid = int(line.rsplit(" ", 1)[1])
            os.kill(pid, 15)
            os.waitpid(pid, 0)


def test_an_engine_that_answers_is_used(machine: FakeMachine) -> None:
    """Nothing is started beside it."""
    (machine.folder / "engine").touch()
    prepare.engine()
    assert machine.started == []


def test_an_engine_that_is_down_is_started(machine: FakeMachine) -> None:
    """With its own settings."""
    prepare.engine()
    assert machine.started == [""]


def test_an_engine_that_may_set_no_packet_filter_is_started_without_a_network(machine: FakeMachine) -> None:
    """As in most containers, and where a kernel has another filter than the engine knows."""
    refuses = 'case "$*" in *--bridge=none*) ;; *) exit 1 ;; esac'
    machine.command("dockerd", SERVER.format(folder=machine.folder, refuses=refuses))
    prepare.engine()
    assert machine.started == ["", " ".join(prepare.WITHOUT_NETWORK)]


def test_an_engine_that_does_not_start_says_why(machine: FakeMachine) -> None:
    """The last of its own log."""
    machine.command("dockerd", "#!/bin/sh\necho 'failed: no space left' >&2\nexit 1\n")
    with pytest.raises(prepare.CannotPrepareError, match="no space left"):
        prepare.engine()


def test_the_service_is_started_where_systemd_runs(machine: FakeMachine) -> None:
    """It knows the machine's own settings, and how to end it."""
    (machine.folder / "no-systemd").mkdir()
    machine.command("systemctl", f"#!/bin/sh\n[ \"$*\" = 'start docker' ] && touch {machine.folder}/engine\n")
    prepare.engine()
    assert machine.started == []


@pytest.mark.parametrize("name", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_an_engine_elsewhere_that_does_not_answer_is_named(
    machine: FakeMachine, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whoever names one wants no other: none is started here."""
    monkeypatch.setenv(name, "elsewhere")
    with pytest.raises(prepare.CannotPrepareError, match=f"{name}=elsewhere; start it, or unset {name}"):
        prepare.engine()
    assert machine.started == []


def test_a_plain_user_is_told_what_to_run(machine: FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may not start an engine, nor perhaps ask it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(prepare.CannotPrepareError, match=r"sudo systemctl start docker.*sudo usermod -aG docker"):
        prepare.engine()
    assert machine.started == []


@pytest.mark.parametrize("machine_name", ["x86_64", "aarch64"])
def test_wheels_are_those_of_the_images_architecture(machine_name: str) -> None:
    """Of Debian 12's C library and older."""
    named = prepare.platforms(machine_name)[1::2]
    assert f"manylinux_2_28_{machine_name}" in named
    assert f"manylinux2014_{machine_name}" in named
    assert all(tag.endswith(machine_name) for tag in named)
