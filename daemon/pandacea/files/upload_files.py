"""The uploads folder: one file an upload, named by its Spender and its sha-256, under that name only when it is whole."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.domain.limits import MIB
from pandacea.errors import ProblemError
from pandacea.files.durable import fsync_path, rename_durably
from pandacea.files.results import free_disk_bytes

WRITE_CHUNK_BYTES: Final = MIB
"""Bytes gathered before a write is handed to a thread."""


@dataclass(frozen=True, slots=True)
class UploadFiles:
    """The uploads folder of a node."""

    folder: Path
    free_bytes: Callable[[Path], int] = free_disk_bytes

    def path_of(self, spender: str, sha256: str) -> Path:
        """Return the file of one Spender's upload."""
        return self.folder / spender / sha256

    def part_of(self, spender: str) -> Path:
        """Return a new name for an upload that is being received."""
        return self.folder / spender / f".{secrets.token_hex(8)}.part"

    async def write_part(self, part: Path, chunks: AsyncIterator[bytes], max_bytes: int) -> tuple[str, int]:
        """Write an upload as it arrives; returns its sha-256 (hex) and its size in bytes.

        Raises:
            ProblemError: `body-too-large`: more than `max_bytes` came.
        """
        await asyncio.to_thread(part.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
        digest, written, waiting = hashlib.sha256(), 0, bytearray()
        with await asyncio.to_thread(part.open, "xb") as file:
            async for chunk in chunks:
                written += len(chunk)
                if written > max_bytes:
                    raise ProblemError("body-too-large", f"More than {max_bytes:,} bytes came.")
                waiting += chunk
                if len(waiting) >= WRITE_CHUNK_BYTES:
                    await asyncio.to_thread(_write_and_hash, file.write, digest.update, bytes(waiting))
                    waiting.clear()
            await asyncio.to_thread(_write_and_hash, file.write, digest.update, bytes(waiting))
        return digest.hexdigest(), written

    async def make_durable(self, part: Path) -> None:
        """Fsync a received file and make it read-only: a sandbox is handed its descriptor."""

        def flush() -> None:
            part.chmod(0o444)
            fsync_path(part)

        await asyncio.to_thread(flush)

    async def publish(self, part: Path, spender: str, sha256: str) -> None:
        """Give a durable part its final name, at once or not at all."""

        def rename() -> None:
            rename_durably(part, self.path_of(spender, sha256))
            fsync_path(self.folder)  # the Spender's folder may be new

        await asyncio.to_thread(rename)

    async def remove(self, spender: str, sha256: str) -> None:
        """Delete an upload's file; one that is gone already is not missed."""
        await asyncio.to_thread(self.path_of(spender, sha256).unlink, missing_ok=True)

    async def remove_unknown(self, known: Collection[tuple[str, str]]) -> None:
        """Delete every file that is not in `known` (Spender, sha-256), parts of interrupted uploads among them, and empty folders."""

        def remove() -> None:
            for path in self.folder.glob("*/*"):
                if (path.parent.name, path.name) not in known:
                    path.unlink(missing_ok=True)
            for folder in self.folder.glob("*"):
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

        await asyncio.to_thread(remove)


def _write_and_hash(write: Callable[[bytes], object], update: Callable[[bytes], object], data: bytes) -> None:
    write(data)
    update(data)
