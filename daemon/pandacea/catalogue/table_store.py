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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pandacea.catalogue.sources import SourceFile, hash_file
from pandacea.domain.limits import Limits
from pandacea.domain.product import Mock
from pandacea.domain.table import Recipe, SourceFormat, TableShape
from pandacea.errors import Broken
from pandacea.files.durable import rename_durably
from pandacea.flows.ports import CHUNK_BYTES, ConversionJob, TableConverter, UnreadableSource

GIB: Final = 1 << 30
CONVERSION_SECONDS: Final = 6 * 3600.0
OnConversionProgress = Callable[[float, float], None]
"""Called now and then with what is done and the total."""


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table in the store."""

    digest: str
    """sha-256 (hex) of its bytes; never leaves the node."""
    path: Path
    size: int
    shape: TableShape


class TableStore:
    """Has sources converted in a sandbox and keeps the tables."""

    def __init__(
        self,
        folder: Path,
        converter: TableConverter,
        limits: Limits,
        max_bytes: int = 64 * GIB,
        chunk_bytes: int = CHUNK_BYTES,
        incoming: str = "incoming",
    ) -> None:
        """`folder`: of this node alone. `limits`: of a conversion's sandbox; its time limit is not used. `max_bytes`: of one table.

        `incoming`: the folder of conversions under way; a second process on the same folder needs another name.
        """
        self._folder, self._converter, self._max_bytes, self._chunk_bytes = folder, converter, max_bytes, chunk_bytes
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
        shutil.rmtree(self._incoming_folder, ignore_errors=True)  # of a conversion that a stopped node left half done
        for path in (folder, self._incoming_folder, folder / "mocks", folder / "recipes"):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)

    async def inspect_source(self, source: SourceFile, recipe: Recipe) -> TableShape:
        """Return names, types and flags of the columns, from the start of the source.

        Raises:
            UnreadableSource, BadConfig, Unavailable, Broken: as `convert_source`.
        """
        _check_no_journal(source, recipe)
        return await self._converter.convert_table(self._job(source.descriptor, recipe, None, None), _ignore_progress)

    async def convert_source(
        self, source: SourceFile, recipe: Recipe, recipe_digest: str, on_progress: OnConversionProgress
    ) -> StoredTable:
        """Convert a source to a table that is in the store, whole and on the disk. `recipe_digest`: `source.recipe_digest(recipe)`.

        What was converted before in the same way is not converted again.

        Raises:
            UnreadableSource: it is not a table that can be served; nothing is left behind.
            BadConfig: it changed meanwhile.
            Unavailable, Broken: the sandbox or the disk failed.
        """
        if (known := self._find_converted(recipe_digest)) is not None:
            return known
        _check_no_journal(source, recipe)
        with self._incoming_files() as (scratch, fresh):
            shape = await self._converter.convert_table(self._job(source.descriptor, recipe, scratch, fresh), on_progress)
            source.check_unchanged()
            digest, size = await asyncio.to_thread(_sync_and_hash, fresh)
            if size == 0:
                raise UnreadableSource("the sandbox that read it left no table")
            table = StoredTable(digest, _adopt_file(fresh, self._folder / f"{digest}.arrow"), size, shape)
            self._record_recipe(recipe_digest, table)
            return table

    def _job(self, source: int, recipe: Recipe, scratch: Path | None, table: Path | None) -> ConversionJob:
        max_table_bytes = self._max_table_bytes()
        return ConversionJob(source, recipe, self._limits, max_table_bytes, scratch, table, chunk_bytes=self._chunk_bytes)

    def _find_converted(self, recipe_digest: str) -> StoredTable | None:
        """Return the table that a recipe made before, while it is there."""
        try:
            record = json.loads((self._folder / "recipes" / f"{recipe_digest}.json").read_bytes())
            shape = TableShape.from_json(record)
            table = StoredTable(record["digest"], self._folder / f"{record['digest']}.arrow", record["size"], shape)
        except (FileNotFoundError, ValueError, KeyError):  # never converted, or recorded by a node that wrote otherwise
            return None
        return table if table.path.is_file() else None

    def _record_recipe(self, recipe_digest: str, table: StoredTable) -> None:
        record = {"digest": table.digest, "size": table.size} | table.shape.to_json()
        fresh = self._incoming_folder / f"{secrets.token_hex(8)}.json"
        fresh.write_text(json.dumps(record), encoding="utf-8")
        _adopt_file(fresh, self._folder / "recipes" / f"{recipe_digest}.json")

    async def store_mock(self, text: bytes, types: Mapping[str, str], *, missing_as_nan: bool) -> Mock:
        """Keep a mock: its CSV text, and a table of it with the given column types. Converted once."""
        sha256 = hashlib.sha256(text).hexdigest()
        key = json.dumps([sha256, list(types.items()), missing_as_nan])
        name = hashlib.sha256(key.encode()).hexdigest()
        mock = Mock(sha256, self._folder / "mocks" / f"{sha256}.csv", self._folder / "mocks" / f"{name}.arrow")
        if not mock.csv.exists():
            fresh = self._incoming_folder / f"{secrets.token_hex(8)}.csv"
            fresh.write_bytes(text)
            _adopt_file(fresh, mock.csv)
        if not mock.table.exists():
            with self._incoming_files() as (scratch, fresh):
                descriptor = os.open(mock.csv, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    job = replace(
                        self._job(descriptor, Recipe(SourceFormat.CSV), scratch, fresh), types=types, missing_as_nan=missing_as_nan
                    )
                    await self._converter.convert_table(job, _ignore_progress)
                finally:
                    os.close(descriptor)
                _adopt_file(fresh, mock.table)
        return mock

    @contextmanager
    def _incoming_files(self) -> Iterator[tuple[Path, Path]]:
        """Make an empty scratch file and an empty table file; what is left of them at the end is removed."""
        name = secrets.token_hex(8)
        scratch, table = (self._incoming_folder / f"{name}.{end}" for end in ("scratch", "arrow"))
        try:
            for path in (scratch, table):
                path.touch(0o600, exist_ok=False)
            yield scratch, table
        finally:
            for path in (scratch, table):
                path.unlink(missing_ok=True)

    def _max_table_bytes(self) -> int:
        """Return what a table may take: scratch file and table are on the disk at once, and 1 GiB is left for the node.

        Raises:
            Broken: the disk is full.
        """
        free = shutil.disk_usage(self._folder).free
        allowed = min(self._max_bytes, (free - GIB) // 2)
        if allowed <= 0:
            raise Broken(f"The disk of {self._folder} has {free} bytes left; a conversion needs more than {GIB}. Make room.")
        return allowed


def _ignore_progress(_done: float, _total: float) -> None:
    """Drop a report of progress that nobody reads."""


def _check_no_journal(source: SourceFile, recipe: Recipe) -> None:
    """Refuse a SQLite database that keeps its newest changes in a file beside it, which is not read."""
    if recipe.format is not SourceFormat.SQLITE:
        return
    for suffix in ("-wal", "-journal"):
        journal = source.path.with_name(source.path.name + suffix)
        if journal.exists() and journal.stat().st_size:
            raise UnreadableSource(
                f"{journal.name} holds changes that are not in the file yet; close what writes to it, then try again"
            )


def _sync_and_hash(path: Path) -> tuple[str, int]:
    """Bring a file to the disk; return the sha-256 (hex) of its bytes and its size."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
        return hash_file(descriptor)
    finally:
        os.close(descriptor)


def _adopt_file(fresh: Path, path: Path) -> Path:
    """Give a file its final name in the store, read-only for everyone, at once or not at all."""
    if path.exists():
        fresh.unlink()
        return path
    fresh.chmod(0o444)
    rename_durably(fresh, path)
    return path
