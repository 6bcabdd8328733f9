"""Files that are replaced: a reader finds the old content or the new, whole, and a failure leaves the old."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pandacea.files import durable
from pandacea.files.durable import rename_durably, replace_file


def test_a_file_is_replaced_with_its_mode_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """New or not; whoever opened the old one goes on reading it."""
    path = tmp_path / "record.json"
    replace_file(path, b"one", mode=0o600)
    with path.open("rb") as old:
        replace_file(path, b"two", mode=0o444)
        assert old.read() == b"one"
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"two", 0o444)
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_disk_does_not_take_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old content stays when the new one does not reach the disk."""
    path = tmp_path / "record.json"
    replace_file(path, b"one")

    def fail(_path: Path) -> None:
        raise OSError(5, "I/O error")

    monkeypatch.setattr(durable, "fsync_path", fail)
    with pytest.raises(OSError, match="I/O error"):
        replace_file(path, b"two")
    assert path.read_bytes() == b"one"


def test_the_folder_is_brought_to_the_disk_after_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is not on the disk would be gone after a power failure."""
    synced: list[Path] = []
    monkeypatch.setattr(durable, "fsync_path", synced.append)
    (tmp_path / "part").write_bytes(b"x")
    rename_durably(tmp_path / "part", tmp_path / "whole")
    assert synced == [tmp_path]
    assert (tmp_path / "whole").read_bytes() == b"x"
