"""An Earner's files, opened without trusting them: beneath the data folder, no link on the way, regular, the same before and after."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.errors import BadConfig

CHUNK: Final = 1 << 20
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An open source file."""

    path: Path
    descriptor: int
    stamp: str
    """Changes whenever the file may have."""

    def check_unchanged(self) -> None:
        """Raise BadConfig when somebody wrote to the file since it was opened."""
        if file_stamp(os.fstat(self.descriptor)) != self.stamp:
            raise BadConfig(f"{self.path} changed while it was read; register it again when nothing writes to it.")


def file_stamp(found: os.stat_result) -> str:
    """Which file this is, how large, and when it was last changed: content, owner or mode (ctime cannot be set back)."""
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


@contextmanager
def open_source(path: Path, beneath: Path) -> Iterator[SourceFile]:
    """Open a source.

    Raises:
        BadConfig: it lies outside `beneath`, is a link, no regular file, or cannot be read; the sentence says which.
    """
    descriptor = _open(path, beneath)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BadConfig(f"{path} is a {_kind_of_file(found.st_mode)}; a table must be a regular file.")
        yield SourceFile(path, descriptor, file_stamp(found))
    finally:
        os.close(descriptor)


def _open(path: Path, beneath: Path) -> int:
    """Walk from `beneath` one name at a time, so that no link on the way leads out."""
    try:
        parts = path.relative_to(beneath).parts
    except ValueError:
        raise BadConfig(f"{path} lies outside {beneath}; a table must be in the data folder.") from None
    if not parts or ".." in parts:
        raise BadConfig(f"{path} is no file beneath {beneath}.")
    try:
        folder = os.open(beneath, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in parts[:-1]:
            try:
                inner = os.open(name, _FLAGS | os.O_DIRECTORY, dir_fd=folder)
            finally:
                os.close(folder)
            folder = inner
        try:
            return os.open(parts[-1], _FLAGS, dir_fd=folder)
        finally:
            os.close(folder)
    except OSError as problem:
        link = path.is_symlink()
        words = "it is a symbolic link, and links may lead anywhere; put the file itself here" if link else problem.strerror
        raise BadConfig(f"{path} cannot be opened: {words}.") from problem


def _kind_of_file(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode):
        return "named pipe"
    return "device or socket"


def hash_file(descriptor: int) -> tuple[str, int]:
    """sha-256 (hex) and size of what is behind a descriptor, from its start."""
    sha256, size = hashlib.sha256(), 0
    while data := os.pread(descriptor, CHUNK, size):
        sha256.update(data)
        size += len(data)
    return sha256.hexdigest(), size
