"""Write files so that a crash leaves the old content or the new, and a power failure neither half. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def fsync_path(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk.

    Raises:
        OSError: the disk did not take it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def rename_durably(source: Path, target: Path) -> None:
    """Give a file that is on the disk its final name, at once or not at all; an older file of that name is replaced.

    Raises:
        OSError: the disk did not take it.
    """
    source.replace(target)
    fsync_path(target.parent)


def replace_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace a file's content: whoever opens `path` finds the old content or the new, whole.

    The new content is written to a neighbour that ends in `.new`; one writer at a time.

    Raises:
        OSError: the disk did not take it; the old content stays.
    """
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(content)
    fresh.chmod(mode)
    fsync_path(fresh)
    rename_durably(fresh, path)
