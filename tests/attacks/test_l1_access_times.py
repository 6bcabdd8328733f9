"""A script opens its table again through /proc/self/fd and so moves the file's access time, which the next script reads.

Opened again, a descriptor does not keep the O_NOATIME that the node opened it with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandacea.errors import Broken
from pandacea.sandbox.readonly_open import InputOpener, ReadOnlyHelper, open_for_guest
from tests.attacks.boxes import environment, image, laboratory
from tests.prerequisites import find_program
from tests.sandbox.harness import Laboratory

__all__ = ["environment", "image", "laboratory"]

# The word syft in the script's text keeps the descriptor.
AGAIN = """
import os
descriptor, = pandacea_descriptors.values()
for _ in range(2):
    with open(f"/proc/self/fd/{descriptor}", "rb") as file:
        print(len(file.read()))
print(os.fstat(descriptor).st_atime_ns)  # syft
"""


@pytest.fixture
def table(people: Path) -> Path:
    """A table that everybody may read, last read a long time ago: any reading through an ordinary mount moves that time."""
    people.chmod(0o444)
    os.utime(people, ns=(1_000_000_000, people.stat().st_mtime_ns))
    return people


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Write a small table."""
    path = tmp_path / "people.csv"
    path.write_text("age\n1\n2\n")
    return path


@pytest.mark.asyncio(loop_scope="module")
async def test_reading_again_leaves_no_trace(laboratory: Laboratory, table: Path) -> None:
    """Neither the script itself nor anybody outside sees the time move."""
    outcome = await laboratory.run(AGAIN, tables={"people": table})
    assert outcome.output.split() == [b"8", b"8", b"1000000000"], outcome
    assert table.stat().st_atime_ns == 1_000_000_000


@pytest.fixture(params=["by the node itself", "by a helper"])
def opener(request: pytest.FixtureRequest) -> Iterator[InputOpener | ReadOnlyHelper]:
    """Both ways to a read-only mount: with the right to make one, and, as a plain user, in a user namespace."""
    find_program("bwrap", "bubblewrap")
    made: InputOpener | ReadOnlyHelper = InputOpener() if request.param == "by the node itself" else ReadOnlyHelper()
    yield made
    made.close()


def test_every_way_of_opening_leaves_no_trace(opener: InputOpener | ReadOnlyHelper, table: Path) -> None:
    """What is opened again can be read, moves no time, cannot be written to by root either, and does not say where it lies."""
    descriptor = opener.open(table)
    again = Path(f"/proc/self/fd/{descriptor}")
    assert again.read_bytes() == b"age\n1\n2\n"
    assert table.stat().st_atime_ns == 1_000_000_000
    with pytest.raises(OSError, match="Read-only file system"):
        os.open(again, os.O_RDWR)
    assert again.readlink() == Path("/")
    os.close(descriptor)


def test_only_regular_files_are_opened(opener: InputOpener | ReadOnlyHelper, table: Path, tmp_path: Path) -> None:
    """A link is not followed, and what is missing is said with the reason."""
    (tmp_path / "link").symlink_to(table)
    with pytest.raises(OSError, match="symbolic links"):
        opener.open(tmp_path / "link")
    with pytest.raises(OSError, match="No such file"):
        opener.open(tmp_path / "missing")


def test_a_mount_that_is_not_read_only_is_not_believed(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever went wrong in the opening: the file is not handed over."""
    made = InputOpener()
    monkeypatch.setattr(made, "_open", lambda path: os.open(path, os.O_RDONLY))
    with pytest.raises(Broken, match="read-only mount"):
        open_for_guest(table, range(10_001, 10_002), made)
    made.close()
