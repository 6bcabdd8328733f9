"""The results folder: one folder a computation, its artifacts named by numbers, and the bytes and files that the disk still takes."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.domain.limits import MIB, Limits
from pandacea.files.durable import fsync_path

SPARE_BYTES: Final = 256 * MIB
"""Bytes left free on the disk beside the largest result: for the database and the log."""
SPARE_INODES: Final = 256
"""Files that may still be made on the disk beside those of the largest result."""


def free_disk_bytes(folder: Path) -> int:
    """Return the bytes that an unprivileged writer may still take on the folder's file system."""
    return shutil.disk_usage(folder).free


def free_disk_inodes(folder: Path) -> int:
    """Return how many files may still be made on the folder's file system; 2**62 where it does not count them."""
    found = os.statvfs(folder)
    return found.f_favail if found.f_files else 2**62


@dataclass(frozen=True, slots=True)
class ResultStore:
    """The results folder and its quotas. Sizes in bytes; `flows.result_quota` holds the quotas against the rows."""

    folder: Path
    max_bytes: int
    """All results of leased runs together may take this much."""
    max_bytes_per_spender: int = 1 << 62
    """The results of one Spender, held ones among them, may take this much."""
    max_rehearsal_bytes: int = 256 * MIB
    """All results of rehearsals together may take this much, beside `max_bytes`."""
    max_rehearsal_bytes_per_spender: int = 32 * MIB
    free_bytes: Callable[[Path], int] = free_disk_bytes
    free_inodes: Callable[[Path], int] = free_disk_inodes

    def path_of(self, computation_id: str) -> Path:
        """Return the folder of one computation's artifacts."""
        return self.folder / computation_id

    async def create_folder(self, computation_id: str) -> Path:
        """Make an empty folder for one run; what an earlier attempt left in it is removed."""

        def create() -> Path:
            folder = self.path_of(computation_id)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
            return folder

        return await asyncio.to_thread(create)

    async def remove_folder(self, computation_id: str) -> None:
        """Delete one computation's files."""
        await asyncio.to_thread(shutil.rmtree, self.path_of(computation_id), ignore_errors=True)

    async def make_durable(self, computation_id: str, files: Collection[str]) -> None:
        """Fsync artifacts and their folder before the row is committed, so that a power failure cannot leave a row without files.

        Raises:
            OSError: the disk did not take them.
        """

        def flush() -> None:
            folder = self.path_of(computation_id)
            for path in [*(folder / name for name in files), folder, self.folder]:
                fsync_path(path)

        if files:
            await asyncio.to_thread(flush)

    async def write_file(self, computation_id: str, name: str, content: bytes) -> Path:
        """Write a file beside a computation's artifacts, for its user alone; it goes with the folder. Not durable."""
        path = self.path_of(computation_id) / name

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)

        await asyncio.to_thread(write)
        return path

    def find_disk_shortage(self, limits: Limits, runs: int = 1) -> str | None:
        """Say why the largest results of so many runs would not fit on the disk; None when they would."""
        wanted = runs * limits.largest_result + SPARE_BYTES
        if (free := self.free_bytes(self.folder)) < wanted:
            return f"{free // MIB} MiB are free in {self.folder}, and {wanted // MIB} may be needed"
        files = runs * (limits.artifact_count + 1) + SPARE_INODES
        if (inodes := self.free_inodes(self.folder)) < files:
            return f"{inodes} files may still be made in {self.folder}, and {files} may be needed"
        return None

    def list_unknown(self, known: Collection[str]) -> list[str]:
        """Return the names in the folder that belong to none of the known computations."""
        return [path.name for path in self.folder.iterdir() if path.name not in known] if self.folder.is_dir() else []
