"""What registration needs of a sandbox: a source in, a table out, by descriptors; as Protocols."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pandacea.domain.limits import Limits
from pandacea.domain.table import Recipe, TableShape
from pandacea.errors import Refused

CHUNK_BYTES: Final = 16 << 20
"""Text that is parsed at a time: what a conversion's memory is a multiple of."""


class UnreadableSource(Refused):
    """The file is no table that can be served."""

    code = "unfit-source"


@dataclass(frozen=True, slots=True)
class ConversionJob:
    """One conversion. `scratch` and `table` are new, empty files of the node's own; the box writes to them and nobody reads meanwhile."""

    source: int
    """An open descriptor, read-only; stays the caller's."""
    recipe: Recipe
    limits: Limits
    """`memory_bytes`, `cpus`, `time_seconds` and the box's folders; the rest does not apply."""
    max_table_bytes: int
    """What the table, and the scratch file, may take on the disk."""
    scratch: Path | None
    table: Path | None
    """Both None: only look at the start of the source."""
    types: Mapping[str, str] | None = None
    """Column types to read a small CSV file as (a mock), instead of inferring them."""
    missing_as_nan: bool = False
    """With `types`: missing numbers are NaN in a frame, as in a table that came from text."""
    chunk_bytes: int = CHUNK_BYTES


class TableConverter(Protocol):
    """A box that reads a file nobody trusts."""

    async def convert_table(self, job: ConversionJob, on_progress: Callable[[float, float], None]) -> TableShape:
        """Read `job.source` and write `job.table`. `on_progress(done, total)` is called now and then.

        Raises:
            UnreadableSource: the file is no table; the sentence names line, column and what to do.
            Unavailable: the box failed; nothing is known about the file.
        """
        ...
