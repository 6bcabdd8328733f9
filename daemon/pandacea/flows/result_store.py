"""Where results lie on disk: one folder a computation, and how much room there is for another."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.domain.ids import Address
from pandacea.domain.job import JobState, Mode
from pandacea.domain.limits import MIB, Limits
from pandacea.errors import Unavailable
from pandacea.flows.unit_of_work import ReadSession, StoredArtifact, Unseen

SPARE_BYTES: Final = 256 * MIB
"""Left free on the disk beside the largest result: for the database and the log."""
SPARE_INODES: Final = 256
"""The same, in files."""


class ResultsFull(Unavailable):
    """The Spender's own room for results is full; nobody else's is."""

    code = "results-full"


class DiskFull(Unavailable):
    """The node has no room for another result; try again later."""

    code = "disk-full"


def free_disk_bytes(folder: Path) -> int:
    """Bytes an unprivileged writer may still take on the folder's file system."""
    return shutil.disk_usage(folder).free


def free_disk_inodes(folder: Path) -> int:
    """Files an unprivileged writer may still make on the folder's file system; a great many where it keeps no count of them."""
    seen = os.statvfs(folder)
    return seen.f_favail if seen.f_files else 2**62


@dataclass(frozen=True, slots=True)
class ResultStore:
    """The results folder, and the room on it. Sizes in bytes.

    Whoever runs has reserved the largest result there can be: asked in the transaction that starts a run, so that two never find room
    for one. What waits reserves nothing: it starts when there is room, and most results are small.
    """

    folder: Path
    max_bytes: int
    """All results of leased runs together may take this much."""
    max_bytes_per_spender: int = 1 << 62
    """One Spender's, held ones among them, may take this much."""
    max_rehearsal_bytes: int = 256 * MIB
    """All results of rehearsals together may take this much, beside `most`."""
    max_rehearsal_bytes_per_spender: int = 32 * MIB
    free_bytes: Callable[[Path], int] = free_disk_bytes
    free_inodes: Callable[[Path], int] = free_disk_inodes

    def path_of(self, computation_id: str) -> Path:
        """The folder of one computation's artifacts."""
        return self.folder / computation_id

    async def create_folder(self, computation_id: str) -> Path:
        """An empty folder for one run."""

        def fresh() -> Path:
            folder = self.path_of(computation_id)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
            return folder

        return await asyncio.to_thread(fresh)

    async def remove_folder(self, computation_id: str) -> None:
        """Throw one computation's bytes away."""
        await asyncio.to_thread(shutil.rmtree, self.path_of(computation_id), ignore_errors=True)

    async def make_durable(self, computation_id: str, kept: list[StoredArtifact]) -> None:
        """Bring artifacts to the disk before the row that names them: the power may go in between."""

        def flush() -> None:
            folder = self.path_of(computation_id)
            for path in [*(folder / item.file for item in kept), folder, self.folder]:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

        if kept:
            await asyncio.to_thread(flush)

    def find_disk_shortage(self, limits: Limits, runs: int = 1) -> str | None:
        """Why the largest results of so many runs would not fit on the disk; None when they would."""
        wanted = runs * limits.largest_result + SPARE_BYTES
        if (free := self.free_bytes(self.folder)) < wanted:
            return f"{free // MIB} MiB are free in {self.folder}, and {wanted // MIB} may be needed"
        files = runs * (limits.artifact_count + 1) + SPARE_INODES
        if (inodes := self.free_inodes(self.folder)) < files:
            return f"{inodes} files may still be made in {self.folder}, and {files} may be needed"
        return None

    async def find_shortage(self, view: ReadSession, limits: Limits, mode: Mode) -> str | None:
        """Why the largest result of one more run would not fit beside those of the runs under way; None when it would.

        Bytes and files on the disk and, of a leased run, bytes within `most`. A run may start when this says None, in the transaction
        that starts it.
        """
        running = await view.jobs.count_running() if mode is Mode.LIVE else {}
        leased, all_runs = sum(running.values()) + 1, len(await view.jobs.list_in_state(JobState.RUNNING)) + 1
        return await self._shortage(view, limits, mode, all_runs, leased)

    async def _shortage(self, view: ReadSession, limits: Limits, mode: Mode, runs: int, leased: int) -> str | None:
        if (short := self.find_disk_shortage(limits, runs)) is not None:
            return short
        if mode is Mode.MOCK:
            return None  # rehearsals have a pot of their own, in which the oldest make room
        taken = sum((await view.jobs.stored_bytes(Mode.LIVE)).values()) + leased * limits.largest_result
        if taken > self.max_bytes:
            return f"results may need {taken // MIB} MiB, and store.max_results_mb is {self.max_bytes // MIB}"
        return None

    async def require_room(self, view: ReadSession, limits: Limits, spender: Address, mode: Mode, unseen: Unseen) -> None:
        """Refuse early what could not start even if nothing else ran.

        What a held run left counts once it reads as held, and no figure is named: else this would tell when it ended, and what it left.

        Raises:
            ResultsFull: the Spender's own room would not take the largest result.
            DiskFull: the node's would not.
        """
        mine = (await view.jobs.stored_bytes(Mode.LIVE)).get(spender, 0) - unseen.stored_bytes if mode is Mode.LIVE else 0
        if mine + limits.largest_result > self.max_bytes_per_spender:
            raise ResultsFull(
                f"One Spender's results may take {self.max_bytes_per_spender:,} bytes here, and beside yours the largest of another would not fit. "
                "Your oldest go from an hour after they ended; those that the Earner holds stay until the Earner "
                "decides.",
                retry_after=300,
            )
        if await self._shortage(view, limits, mode, 1, 1) is not None:
            raise DiskFull("The node has no room for another result now; nothing was accepted. Try again later.", retry_after=60)

    async def list_full_spenders(self, view: ReadSession, limits: Limits) -> list[Address]:
        """Spenders whose room would not take another result beside those that their runs under way may leave."""
        stored, running = await view.jobs.stored_bytes(Mode.LIVE), await view.jobs.count_running()
        coming = {spender: stored.get(spender, 0) + running.get(spender, 0) * limits.largest_result for spender in stored | running}
        return [spender for spender, size in coming.items() if size + limits.largest_result > self.max_bytes_per_spender]

    def list_unknown(self, known: set[str]) -> list[str]:
        """Names in the folder that belong to no known computation."""
        return [path.name for path in self.folder.iterdir() if path.name not in known] if self.folder.is_dir() else []


def _largest(limits: Limits) -> int:
    """Bytes of the largest result these limits let through."""
    return limits.artifacts_bytes + limits.output_bytes
