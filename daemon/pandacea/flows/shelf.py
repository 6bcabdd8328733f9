"""Where results lie on disk: one folder a computation, and how much room there is for another."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.domain.limits import MIB, Limits
from pandacea.errors import Unavailable
from pandacea.flows.books import KeptArtifact, View

SPARE_BYTES: Final = 256 * MIB
"""Left free on the disk beside the largest result: for the database and the log."""


class DiskFull(Unavailable):
    """The node has no room for another result; try again later."""

    code = "disk-full"


def free_bytes(folder: Path) -> int:
    """Bytes an unprivileged writer may still take on the folder's file system."""
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class Shelf:
    """The results folder. Sizes in bytes."""

    folder: Path
    most: int
    """All results together may take this much."""
    free: Callable[[Path], int] = free_bytes

    def of(self, computation_id: str) -> Path:
        """The folder of one computation's artifacts."""
        return self.folder / computation_id

    async def make(self, computation_id: str) -> Path:
        """An empty folder for one run."""

        def fresh() -> Path:
            folder = self.of(computation_id)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
            return folder

        return await asyncio.to_thread(fresh)

    async def remove(self, computation_id: str) -> None:
        """Throw one computation's bytes away."""
        await asyncio.to_thread(shutil.rmtree, self.of(computation_id), ignore_errors=True)

    async def secure(self, computation_id: str, kept: list[KeptArtifact]) -> None:
        """Bring artifacts to the disk before the row that names them: the power may go in between."""

        def flush() -> None:
            folder = self.of(computation_id)
            for path in [*(folder / item.file for item in kept), folder, self.folder]:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

        if kept:
            await asyncio.to_thread(flush)

    async def has_room(self, view: View, limits: Limits) -> bool:
        """Whether the largest result of one more run would fit, on the disk and within `most`."""
        largest = limits.artifacts_bytes + limits.output_bytes
        if self.free(self.folder) < largest + SPARE_BYTES:
            return False
        return await view.jobs.stored() + largest <= self.most

    async def need_room(self, view: View, limits: Limits) -> None:
        """Refuse early.

        Raises:
            DiskFull: the largest result would not fit.
        """
        if not await self.has_room(view, limits):
            raise DiskFull("The node has no room for another result now; nothing was accepted. Try again later.", retry_after=60)

    def strangers(self, known: set[str]) -> list[str]:
        """Names in the folder that belong to no known computation."""
        return [path.name for path in self.folder.iterdir() if path.name not in known] if self.folder.is_dir() else []
