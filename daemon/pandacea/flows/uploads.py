"""What a script needs beyond its 100 KB: sent before, kept for a while, given to the sandbox read-only."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from pandacea.domain.ids import Address
from pandacea.domain.limits import MIB
from pandacea.errors import ProblemError
from pandacea.files.results import SPARE_BYTES
from pandacea.files.upload_files import UploadFiles
from pandacea.flows.ports import Clock
from pandacea.flows.result_quota import DiskFull
from pandacea.flows.unit_of_work import Database


@dataclass(frozen=True, slots=True)
class UploadQuota:
    """How much may be kept. Sizes in bytes, time in seconds."""

    max_bytes: int = 64 * MIB
    """One upload."""
    max_spender_bytes: int = 256 * MIB
    max_spender_files: int = 256
    max_total_bytes: int = 2048 * MIB
    keep_seconds: float = 86_400.0
    """An upload is kept for this long after it was sent last, and as long as a waiting job names it."""


@dataclass(slots=True)
class UploadStore:
    """The uploads of a node: their rows, their files, and the quota that both are held to."""

    database: Database
    clock: Clock
    files: UploadFiles
    quota: UploadQuota
    _coming_bytes: Counter[str] = field(default_factory=Counter)
    """Bytes being received, by Spender."""
    _coming_files: Counter[str] = field(default_factory=Counter)
    """Files being received, by Spender."""

    async def receive_upload(self, spender: Address, sha256: str, size: int | None, chunks: AsyncIterator[bytes]) -> None:
        """Receive one upload. `size` in bytes as announced; None: it counts as the largest until it has come.

        Raises:
            ProblemError: `uploads-full`, `upload-mismatch` (the bytes have another digest), `body-too-large`.
            DiskFull: no room on the disk.
        """
        announced = self.quota.max_bytes if size is None else size
        if announced > self.quota.max_bytes:
            raise ProblemError("body-too-large", f"An upload may have {self.quota.max_bytes:,} bytes.")
        with self._reserved(spender, announced):
            await self._require_room(spender)
            part = self.files.part_of(spender)
            try:
                digest, written = await self.files.write_part(part, chunks, announced)
                if digest != sha256:
                    raise ProblemError("upload-mismatch", f"The bytes have the sha-256 {digest}, not the one in the path.")
                await self.files.make_durable(part)
                # Name and row change under the write lock, here as in `remove_expired`: neither can undo the other's half.
                async with self.database.unit_of_work() as work:
                    await self.files.publish(part, spender, sha256)
                    await work.uploads.put_upload(spender, sha256, written, self.clock.now() + self.quota.keep_seconds)
                    await work.commit()
            finally:
                part.unlink(missing_ok=True)

    async def find_upload(self, spender: Address, sha256: str) -> tuple[int, float] | None:
        """Find a Spender's own upload: (bytes, Unix seconds until which it is kept); None: it is not here."""
        async with self.database.read_session() as session:
            return await session.uploads.find_upload(spender, sha256, self.clock.now())

    @contextmanager
    def _reserved(self, spender: Address, size: int) -> Iterator[None]:
        """Count an upload against the quota while it is being received."""
        self._coming_bytes[spender] += size
        self._coming_files[spender] += 1
        try:
            yield
        finally:
            self._coming_bytes[spender] -= size
            self._coming_files[spender] -= 1
            if not self._coming_files[spender]:
                del self._coming_bytes[spender], self._coming_files[spender]

    async def _require_room(self, spender: Address) -> None:
        async with self.database.read_session() as session:
            files, mine = await session.uploads.count_usage(spender)
            _, everything = await session.uploads.count_usage()
        quota, coming = self.quota, self._coming_bytes[spender]
        if files + self._coming_files[spender] > quota.max_spender_files or mine + coming > quota.max_spender_bytes:
            raise ProblemError(
                "uploads-full",
                f"You have {files} uploads of {mine:,} bytes here and {self._coming_files[spender]} coming, which goes beyond "
                f"{quota.max_spender_files} files or "
                f"{quota.max_spender_bytes:,} bytes; each is removed {quota.keep_seconds / 3600:g} h after it was sent last.",
            )
        free = self.files.free_bytes(self.files.folder)
        if everything + self._coming_bytes.total() > quota.max_total_bytes or free < coming + SPARE_BYTES:
            raise DiskFull("The node has no room for uploads now; try again later.", retry_after=600)

    async def remove_expired(self) -> int:
        """Remove what expired and is not named by a waiting or running job; returns how many."""
        async with self.database.unit_of_work() as work:
            needed = await work.jobs.list_needed_uploads()
            gone = [key for key in await work.uploads.list_expired(self.clock.now()) if key not in needed]
            for spender, sha256 in gone:
                await work.uploads.delete_upload(spender, sha256)
                await self.files.remove(spender, sha256)
            await work.commit()
        return len(gone)

    async def remove_unknown(self) -> None:
        """Remove, at start, files that no row names: parts of uploads that a stopped node was receiving among them."""
        async with self.database.read_session() as session:
            known = await session.uploads.list_all()
        await self.files.remove_unknown(known)
