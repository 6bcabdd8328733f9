"""The node's own tables: one Arrow file of one batch each, named by the sha-256 of its bytes, read-only, never in the data folder."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pandacea.catalogue.sources import SourceFile, hash_file
from pandacea.domain.limits import Limits
from pandacea.domain.table import Recipe, SourceFormat, TableShape
from pandacea.errors import Broken
from pandacea.flows.conversion import CHUNK_BYTES, ConversionJob, TableConverter, UnreadableSource

GIB: Final = 1 << 30
CONVERSION_SECONDS: Final = 6 * 3600.0
OnConversionProgress = Callable[[float, float], None]


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table in the store."""

    digest: str
    """sha-256 (hex) of its bytes; never leaves the node."""
    path: Path
    size: int
    shape: TableShape


class TableStore:
    """Has sources converted in a box and keeps what comes out."""

    def __init__(
        self,
        folder: Path,
        converter: TableConverter,
        limits: Limits,
        max_bytes: int = 64 * GIB,
        piece_bytes: int = CHUNK_BYTES,
        incoming: str = "incoming",
    ) -> None:
        """`folder`: of this node alone. `limits`: of one conversion's box; its time limit is not used.

        `incoming`: where conversions are under way; a second process on the same folder needs another name.
        """
        self._folder, self._converter, self._max_bytes, self._piece_bytes = folder, converter, max_bytes, piece_bytes
        self._limits = Limits(
            memory_bytes=limits.memory_bytes,
            cpus=limits.cpus,
            time_seconds=CONVERSION_SECONDS,
            pids=limits.pids,
            workspace_bytes=limits.workspace_bytes,
            workspace_inodes=limits.workspace_inodes,
            tmp_bytes=limits.tmp_bytes,
        )
        self._incoming_folder = folder / incoming
        shutil.rmtree(self._incoming_folder, ignore_errors=True)  # a conversion that a stopped node left half done
        for path in (folder, self._incoming_folder, folder / "mocks", folder / "recipes"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def inspect_source(self, source: SourceFile, recipe: Recipe) -> TableShape:
        """Names, types and flags, judged by the start of the source. Raises UnreadableSource, BadConfig, Unavailable."""
        self._check_no_journal(source, recipe)
        job = ConversionJob(source.descriptor, recipe, self._limits, self._free_bytes(), None, None, chunk_bytes=self._piece_bytes)
        return await self._converter.convert_table(job, lambda _done, _total: None)

    async def convert_source(
        self, source: SourceFile, recipe: Recipe, digest: str, on_progress: OnConversionProgress
    ) -> StoredTable:
        """Convert a source; when this returns the table is in the store, whole and on the disk. `digest`: see `Recipe.digest`.

        What was converted before in the same way is not converted again.

        Raises:
            UnreadableSource: it is no table; nothing is left behind.
            BadConfig: it changed meanwhile.
            Unavailable, Broken: the box or the disk failed.
        """
        if (known := self._find_converted(digest)) is not None:
            return known
        self._check_no_journal(source, recipe)
        with self._incoming_files() as (scratch, table):
            job = ConversionJob(
                source.descriptor, recipe, self._limits, self._free_bytes(), scratch, table, chunk_bytes=self._piece_bytes
            )
            shape = await self._converter.convert_table(job, on_progress)
            source.check_unchanged()
            table_digest, size = await asyncio.to_thread(_sync_and_hash, table)
            _check_size(size)
            made = StoredTable(table_digest, _adopt_file(table, self._folder / f"{table_digest}.arrow"), size, shape)
            self._record_recipe(digest, made)
            return made

    def _find_converted(self, digest: str) -> StoredTable | None:
        """The table of a recipe that was followed before, while it is there."""
        try:
            noted = json.loads((self._folder / "recipes" / f"{digest}.json").read_bytes())
            made = StoredTable(
                noted["digest"], self._folder / f"{noted['digest']}.arrow", noted["size"], TableShape.from_json(noted)
            )
        except (FileNotFoundError, ValueError, KeyError):  # never followed, or noted by a node that wrote otherwise
            return None
        return made if made.path.is_file() else None

    def _record_recipe(self, digest: str, made: StoredTable) -> None:
        noted = {"digest": made.digest, "size": made.size} | made.shape.to_json()
        fresh = self._incoming_folder / f"{secrets.token_hex(8)}.json"
        fresh.write_text(json.dumps(noted), encoding="utf-8")
        _adopt_file(fresh, self._folder / "recipes" / f"{digest}.json")

    async def store_mock(self, text: bytes, types: Mapping[str, str], *, missing_as_nan: bool) -> tuple[str, Path, Path]:
        """Keep a mock: (sha-256 of its CSV text, the CSV file, its table of the given types). Converted once."""
        digest = hashlib.sha256(text).hexdigest()
        told = json.dumps([digest, list(types.items()), missing_as_nan])
        name = hashlib.sha256(told.encode()).hexdigest()
        path, table = self._folder / "mocks" / f"{digest}.csv", self._folder / "mocks" / f"{name}.arrow"
        if not path.exists():
            fresh = self._incoming_folder / f"{secrets.token_hex(8)}.csv"
            fresh.write_bytes(text)
            _adopt_file(fresh, path)
        if not table.exists():
            with self._incoming_files() as (scratch, made):
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    recipe = Recipe(SourceFormat.CSV)
                    job = ConversionJob(
                        descriptor,
                        recipe,
                        self._limits,
                        self._free_bytes(),
                        scratch,
                        made,
                        types=types,
                        missing_as_nan=missing_as_nan,
                    )
                    await self._converter.convert_table(job, lambda _done, _total: None)
                finally:
                    os.close(descriptor)
                _adopt_file(made, table)
        return digest, path, table

    def _check_no_journal(self, source: SourceFile, recipe: Recipe) -> None:
        """A SQLite database may keep its newest changes in a file beside it, which is not read."""
        if recipe.format is not SourceFormat.SQLITE:
            return
        for suffix in ("-wal", "-journal"):
            beside = source.path.with_name(source.path.name + suffix)
            if beside.exists() and beside.stat().st_size:
                raise UnreadableSource(
                    f"{beside.name} holds changes that are not in the file yet; close what writes to it, then try again"
                )

    @contextmanager
    def _incoming_files(self) -> Iterator[tuple[Path, Path]]:
        name = secrets.token_hex(8)
        scratch, table = (self._incoming_folder / f"{name}.{end}" for end in ("scratch", "arrow"))
        try:
            for path in (scratch, table):
                path.touch(0o600, exist_ok=False)
            yield scratch, table
        finally:
            for path in (scratch, table):
                path.unlink(missing_ok=True)

    def _free_bytes(self) -> int:
        """What a table may take: scratch file and table are on the disk at once, and the node needs room to go on.

        Raises:
            Broken: the disk is full.
        """
        free = shutil.disk_usage(self._folder).free
        room = min(self._max_bytes, (free - GIB) // 2)
        if room <= 0:
            raise Broken(f"The disk of {self._folder} has {free} bytes left; a conversion needs more than {GIB}. Make room.")
        return room


def _sync_and_hash(path: Path) -> tuple[str, int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
        return hash_file(descriptor)
    finally:
        os.close(descriptor)


def _check_size(size: int) -> None:
    if size == 0:
        raise UnreadableSource("the box that read it left no table")


def _adopt_file(fresh: Path, path: Path) -> Path:
    """Make a file the store's own: read-only for everyone, under its final name at once or not at all."""
    if path.exists():
        fresh.unlink()
        return path
    fresh.chmod(0o444)
    os.replace(fresh, path)  # noqa: PTH105 - atomic
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path
