"""What a script needs beyond its 100 KB: handed in before, kept for a while, given to the box read-only."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pandacea.domain.ids import Address
from pandacea.domain.limits import MIB
from pandacea.flows.ports import Clock
from pandacea.flows.result_store import SPARE_BYTES, DiskFull, free_disk_bytes
from pandacea.flows.submit import ProblemError
from pandacea.flows.unit_of_work import Database

WRITE_CHUNK_BYTES: Final = MIB
"""Gathered before a write is handed to a thread."""


def upload_path(folder: Path, spender: str, sha256: str) -> Path:
    """Where one Spender's upload lies."""
    return folder / spender / sha256


@dataclass(frozen=True, slots=True)
class UploadQuota:
    """How much may lie here. Sizes in bytes, time in seconds."""

    max_bytes: int = 64 * MIB
    """One upload."""
    max_spender_bytes: int = 256 * MIB
    max_spender_files: int = 256
    max_total_bytes: int = 2048 * MIB
    keep_seconds: float = 86_400.0
    """An upload is kept for this long after it was last handed in, and as long as a waiting job names it."""


@dataclass(slots=True)
class UploadStore:
    """The uploads folder of a node."""

    database: Database
    clock: Clock
    folder: Path
    quota: UploadQuota
    free_bytes: Callable[[Path], int] = free_disk_bytes
    _coming: Counter[str] = field(default_factory=Counter)
    """Bytes being received, by Spender."""
    _files: Counter[str] = field(default_factory=Counter)
    """Files being received, by Spender."""

    async def receive_upload(self, spender: Address, sha256: str, size: int | None, chunks: AsyncIterator[bytes]) -> None:
        """Take one upload in. `size` in bytes as announced; None: it counts as the largest until it has come.

        Raises:
            Forbidden: `uploads-full`, `upload-mismatch` (the bytes have another digest), `body-too-large`.
            DiskFull: no room on the disk.
        """
        announced = self.quota.max_bytes if size is None else size
        if announced > self.quota.max_bytes:
            raise ProblemError("body-too-large", f"An upload may have {self.quota.max_bytes:,} bytes.")
        with self._reserved(spender, announced):
            await self._need_room(spender)
            part = self.folder / spender / f".{secrets.token_hex(8)}.part"
            try:
                digest, written = await self._write(part, chunks, announced)
                if digest != sha256:
                    raise ProblemError("upload-mismatch", f"The bytes have the sha-256 {digest}, not the one in the path.")
                await asyncio.to_thread(_make_durable, part)
                # Name and row change under the write lock, here as in `sweep`: neither can undo the other's half.
                async with self.database.unit_of_work() as work:
                    await asyncio.to_thread(_give_name, part, upload_path(self.folder, spender, sha256))
                    await work.uploads.put_upload(spender, sha256, written, self.clock.now() + self.quota.keep_seconds)
                    await work.commit()
            finally:
                part.unlink(missing_ok=True)

    @contextmanager
    def _reserved(self, spender: Address, size: int) -> Iterator[None]:
        self._coming[spender] += size
        self._files[spender] += 1
        try:
            yield
        finally:
            self._coming[spender] -= size
            self._files[spender] -= 1
            if not self._files[spender]:
                del self._coming[spender], self._files[spender]

    async def _need_room(self, spender: Address) -> None:
        async with self.database.read_session() as view:
            files, mine = await view.uploads.count_usage(spender)
            _, everything = await view.uploads.count_usage()
        room, coming = self.quota, self._coming[spender]
        if files + self._files[spender] > room.max_spender_files or mine + coming > room.max_spender_bytes:
            raise ProblemError(
                "uploads-full",
                f"You have {files} uploads of {mine:,} bytes here and {self._files[spender]} coming, which goes beyond "
                f"{room.max_spender_files} files or "
                f"{room.max_spender_bytes:,} bytes; each is removed {room.keep_seconds / 3600:g} h after it was sent last.",
            )
        if everything + self._coming.total() > room.max_total_bytes or self.free_bytes(self.folder) < coming + SPARE_BYTES:
            raise DiskFull("The node has no room for uploads now; try again later.", retry_after=600)

    async def _write(self, part: Path, chunks: AsyncIterator[bytes], most: int) -> tuple[str, int]:
        await asyncio.to_thread(part.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
        digest, written, waiting = hashlib.sha256(), 0, bytearray()
        with await asyncio.to_thread(part.open, "xb") as file:
            async for chunk in chunks:
                written += len(chunk)
                if written > most:
                    raise ProblemError("body-too-large", f"More than {most:,} bytes came.")
                waiting += chunk
                if len(waiting) >= WRITE_CHUNK_BYTES:
                    await asyncio.to_thread(_flow, file.write, digest.update, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(_flow, file.write, digest.update, bytes(waiting))
        return digest.hexdigest(), written

    async def remove_expired(self) -> int:
        """Remove what expired and no waiting or running job names; returns how many."""
        async with self.database.unit_of_work() as work:
            wanted = await work.jobs.list_needed_uploads()
            gone = [key for key in await work.uploads.list_expired(self.clock.now()) if key not in wanted]
            for spender, sha256 in gone:
                await work.uploads.delete_upload(spender, sha256)
                await asyncio.to_thread(upload_path(self.folder, spender, sha256).unlink, missing_ok=True)
            await work.commit()
        return len(gone)

    async def remove_unknown(self) -> None:
        """At start: remove files that no row names, halves of uploads that a stopped node was receiving among them."""
        async with self.database.read_session() as view:
            known = await view.uploads.list_all()

        def remove() -> None:
            for path in self.folder.glob("*/*"):
                if (path.parent.name, path.name) not in known:
                    path.unlink(missing_ok=True)
            for folder in self.folder.glob("*"):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

        await asyncio.to_thread(remove)


def _flow(write: Callable[[bytes], object], update: Callable[[bytes], object], data: bytes) -> None:
    write(data)
    update(data)


def _make_durable(part: Path) -> None:
    """Bring a received file to the disk, read-only: a box is handed its descriptor."""
    part.chmod(0o444)
    _sync(part)


def _give_name(part: Path, target: Path) -> None:
    part.replace(target)
    _sync(target.parent)
    _sync(target.parent.parent)  # the Spender's folder may be new


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
