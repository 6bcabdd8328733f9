"""Open an Earner's files safely: beneath the data folder, without following a link, regular files only, unchanged while they are read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.domain.table import Recipe
from pandacea.errors import BadConfig

CHUNK: Final = 1 << 20
_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class SourceFile:
    """An open file of the Earner's."""

    path: Path
    descriptor: int
    stamp: str
    """Which file this is and when it changed last (`file_stamp`): equal stamps, unchanged file."""

    def check_unchanged(self) -> None:
        """Raise BadConfig when the file was written to since it was opened."""
        if file_stamp(os.fstat(self.descriptor)) != self.stamp:
            raise BadConfig(f"{self.path} changed while it was read; register it again when nothing writes to it.")

    def recipe_digest(self, recipe: Recipe) -> str:
        """Read the whole file and return `Recipe.digest`: names what a conversion would read."""
        return recipe.digest(hash_file(self.descriptor)[0])


def file_stamp(status: os.stat_result) -> str:
    """Return device, inode, size and times of a file. A change of content, owner or mode moves ctime, which cannot be set back."""
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


@contextmanager
def open_source(path: Path, beneath: Path) -> Iterator[SourceFile]:
    """Open a source for reading.

    Raises:
        BadConfig: it lies outside `beneath`, is a link, is not a regular file, or cannot be read; the sentence says which.
    """
    descriptor = _open(path, beneath)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadConfig(f"{path} is a {_kind_of_file(status.st_mode)}; a table must be a regular file.")
        yield SourceFile(path, descriptor, file_stamp(status))
    finally:
        os.close(descriptor)


def _open(path: Path, beneath: Path) -> int:
    """Walk from `beneath` one name at a time, so that no link on the way can lead out of it."""
    try:
        parts = path.relative_to(beneath).parts
    except ValueError:
        raise BadConfig(f"{path} lies outside {beneath}; a table must be in the data folder.") from None
    if not parts or ".." in parts:
        raise BadConfig(f"{path} is not a file beneath {beneath}.")
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
    except OSError as error:
        link = path.is_symlink()
        words = "it is a symbolic link, and links may lead anywhere; put the file itself here" if link else error.strerror
        raise BadConfig(f"{path} cannot be opened: {words}.") from error


def _kind_of_file(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode):
        return "named pipe"
    return "device or socket"


def hash_file(descriptor: int) -> tuple[str, int]:
    """Return sha-256 (hex) and size of a descriptor's content, from its start."""
    sha256, size = hashlib.sha256(), 0
    while data := os.pread(descriptor, CHUNK, size):
        sha256.update(data)
        size += len(data)
    return sha256.hexdigest(), size
