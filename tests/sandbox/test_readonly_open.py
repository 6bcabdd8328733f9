"""Which files a script may be handed at all: regular ones that it could never write to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pandacea.errors import Broken
from pandacea.sandbox.readonly_open import InputOpener, open_for_guest, open_without_mount
from pandacea.sandbox.settings import GUEST_UID

UIDS = range(GUEST_UID, GUEST_UID + 10)


@pytest.fixture
def opener() -> Iterator[InputOpener]:
    """As a sandbox opens files here."""
    made = InputOpener()
    yield made
    made.close()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A file of the node's own."""
    path = tmp_path / "table"
    path.write_text("a\n1\n")
    path.chmod(0o600)
    return path


def test_the_nodes_own_file_is_handed_over_for_reading(table: Path, opener: InputOpener) -> None:
    """Read-only, whatever its mode says of others' reading."""
    descriptor = open_for_guest(table, UIDS, opener)
    assert os.read(descriptor, 10) == b"a\n1\n"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(descriptor, b"x")
    os.close(descriptor)


def test_links_and_special_files_are_not(table: Path, tmp_path: Path, opener: InputOpener) -> None:
    """A link may lead anywhere, a fifo may block for ever."""
    (tmp_path / "link").symlink_to(table)
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo", "missing"):
        with pytest.raises(Broken, match=name):
            open_for_guest(tmp_path / name, UIDS, opener)


_GIVEN_AWAY = [(UIDS[-1], -1, 0o400), (-1, UIDS[3], 0o660)] if os.geteuid() == 0 else []  # only root can


@pytest.mark.parametrize(("owner", "group", "mode"), [(-1, -1, 0o646), *_GIVEN_AWAY])
def test_what_scripts_may_write_to_is_refused(table: Path, opener: InputOpener, owner: int, group: int, mode: int) -> None:
    """By mode, as owner or as group: a descriptor opened for reading could be opened again for writing."""
    os.chown(table, owner, group)
    table.chmod(mode)
    with pytest.raises(Broken, match=r"refusing to give .*chmod o-w"):
        open_for_guest(table, UIDS, opener)


def test_without_a_uid_of_its_own_a_read_only_mount_is_needed(
    table: Path, opener: InputOpener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plain node's scripts have its own kernel uid: only the mount can then refuse."""
    os.close(open_for_guest(table, None, opener))
    monkeypatch.setattr(opener, "_open", open_without_mount)
    with pytest.raises(Broken, match="read-only mount"):
        open_for_guest(table, None, opener)
    os.close(open_for_guest(table, UIDS, opener))
