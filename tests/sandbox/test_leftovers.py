"""What a run leaves is counted against it; what others have on the same machine is not, and is left alone."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import run_id
from tests.engine import prepare
from tests.sandbox.leftovers import left_by

Left = Callable[[], list[str]]


@pytest.fixture(autouse=True)
def _another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is named here belongs to a run of its own: this one has servers that go on."""
    monkeypatch.setattr(run_id, "RUN_ID", f"run{uuid.uuid4().hex[:8]}")


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Create the folder of a run."""
    made = tmp_path / "ours"
    made.mkdir()
    return made


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """A tree of control groups: to whoever looks for their names, folders like any other."""
    made = tmp_path / "groups"
    made.mkdir()
    return made


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """The kernel's table of mounts, as proc(5) has it."""
    made = tmp_path / "mounts"
    made.write_text("tmpfs / tmpfs rw 0 0\n")
    return made


@pytest.fixture
def left(ours: Path, groups: Path, mounted: Path) -> Left:
    """What a run with that folder has left."""
    return lambda: left_by(run_id.RUN_ID, [ours], groups=groups, mounted=mounted)


def label_of(state: Path) -> str:
    """The label of a node with that state folder."""
    return hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:16]


def test_control_groups(left: Left, ours: Path, groups: Path, tmp_path: Path) -> None:
    """By the name a test gave, or by the state folder of a node that a test started, and that may be gone."""
    (groups / "memory" / f"pandacea-{label_of(tmp_path / 'theirs' / 'state')}").mkdir(parents=True)
    (groups / "memory" / "pandacea-run0badc0de-test-1").mkdir()
    (groups / "memory" / "somebody-else").mkdir()
    assert left() == []
    made = [f"pandacea-{run_id.instance_name('test')}", f"pandacea-{label_of(ours / 'state')}"]
    for name in made:
        (groups / "memory" / name).mkdir()
    assert sorted(left()) == sorted(f"control group {groups / 'memory' / name}" for name in made)


def test_folders(left: Left, ours: Path, tmp_path: Path) -> None:
    """In the run's own temporary folder."""
    (tmp_path / "pandacea-theirs").mkdir()
    assert left() == []
    (ours / "pandacea-box").mkdir()
    assert left() == [f"folder {ours / 'pandacea-box'}"]


def test_mounts(left: Left, ours: Path, mounted: Path, tmp_path: Path) -> None:
    """Also where the path has a space, which the kernel writes otherwise."""
    spaced = ours / "a b"
    with mounted.open("a") as table:
        table.write(f"tmpfs {tmp_path}/theirs/pandacea tmpfs rw 0 0\n")
    assert left() == []
    with mounted.open("a") as table:
        table.write(f"tmpfs {ours}/a\\040b tmpfs rw 0 0\n")
    assert left() == [f"mount tmpfs {spaced} tmpfs rw 0 0"]


def test_processes(left: Left, ours: Path, tmp_path: Path) -> None:
    """Whoever was started on something in the run's folder."""
    wait = "import sys; print(flush=True); sys.stdin.read()"

    def started(folder: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", wait, str(folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        return process

    with started(tmp_path / "theirs") as theirs:
        assert left() == []
        with started(ours / "state") as own:
            assert [line.split(":")[0] for line in left()] == [f"process {own.pid}"]
            own.communicate()
        theirs.communicate()
    assert left() == []


@pytest.fixture
def container(image: str) -> Iterator[Callable[[str], str]]:
    """Make a container that waits to be started, with a node's label; removed afterwards."""
    made = []

    def create(label: str) -> str:
        name = f"pandacea-{label}-{uuid.uuid4().hex[:12]}"
        made.append(name)
        line = ["docker", "create", "--name", name, "--label", f"org.pandacea.instance={label}", "--network=none", image, "true"]
        subprocess.run(line, check=True, capture_output=True)
        return name

    yield create
    subprocess.run(["docker", "rm", "-f", *made], check=False, capture_output=True)


def test_containers(left: Left, ours: Path, container: Callable[[str], str]) -> None:
    """By the same labels; an engine's other containers are nobody's business here."""
    container("0123456789abcdef")
    assert left() == []
    made = [container(f"{run_id.instance_name('test')}"), container(label_of(ours / "state"))]
    assert sorted(left()) == sorted(f"container {name} Created" for name in made)


def test_other_peoples_containers_outlive_the_preparation(container: Callable[[str], str]) -> None:
    """Preparing the engine and the image changes nothing of what the engine holds already."""
    name = container("0123456789abcdef")
    prepare.engine()
    prepare.image()
    line = ["docker", "inspect", "--format", "{{.State.Status}}", name]
    assert subprocess.run(line, check=True, capture_output=True, text=True).stdout == "created\n"


def test_public_folders(left: Left) -> None:
    """Outside the run's folder, and of its name."""
    made = run_id.public_folder("test")
    try:
        assert left() == [f"folder {made}"]
    finally:
        made.rmdir()
    assert left() == []
