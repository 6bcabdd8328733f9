"""What registration needs of a sandbox: turn a source into a table, by descriptors; as Protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pandacea.domain.limits import Limits
from pandacea.domain.table import Recipe, TableShape
from pandacea.errors import Refused

CHUNK_BYTES: Final = 16 << 20
"""Bytes of text that are parsed at a time: what a conversion's memory is a multiple of."""


class UnreadableSource(Refused):
    """The file is not a table that can be served."""

    code = "unfit-source"


@dataclass(frozen=True, slots=True)
class ConversionJob:
    """One conversion. `scratch` and `table` are new, empty files of the node's own; only the sandbox uses them until it ends."""

    source: int
    """An open descriptor, read-only; the caller closes it."""
    recipe: Recipe
    limits: Limits
    """`memory_bytes`, `cpus`, `time_seconds` and the sizes of the sandbox's folders; the rest does not apply."""
    max_table_bytes: int
    """Bytes that the table, and the scratch file, may each take on the disk."""
    scratch: Path | None
    table: Path | None
    """Both None: read only the start of the source."""
    types: Mapping[str, str] | None = None
    """Column types to read a small CSV file as (a mock), instead of inferring them."""
    missing_as_nan: bool = False
    """With `types`: missing numbers are NaN in a frame, as in a table that came from text."""
    chunk_bytes: int = CHUNK_BYTES


class TableConverter(Protocol):
    """Reads a file that nobody trusts, in a sandbox."""

    async def convert_table(self, job: ConversionJob, on_progress: Callable[[float, float], None]) -> TableShape:
        """Read `job.source` and write `job.table`. `on_progress(done, total)` is called from time to time.

        Raises:
            UnreadableSource: the file is not a table; the sentence names line, column and what to do.
            Unavailable: the sandbox failed; nothing is known about the file.
        """
        ...
