"""The generation file: a number beside the database that only grows, so that an older database put back in its place shows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from pandacea.files.durable import replace_file

FILE_NAME: Final = "generation"
"""Its name in the state folder."""


class GenerationFile:
    """Holds the highest generation that the node has acted on; the database holds its own copy, which is never behind it."""

    def __init__(self, state_dir: Path) -> None:
        """Nothing is read or written yet."""
        self.path = state_dir / FILE_NAME
        self._lock = asyncio.Lock()

    def read(self) -> int | None:
        """Return the number; None: there is no file.

        Raises:
            ValueError: the file holds something else.
            OSError: it cannot be read.
        """
        try:
            text = self.path.read_text("ascii")
        except FileNotFoundError:
            return None
        return int(text)

    async def raise_to(self, number: int) -> None:
        """Write `number` durably, unless the file holds as much already; several may call it at once.

        Raises:
            OSError: the disk did not take it; the old number stays.
        """
        async with self._lock:
            await asyncio.to_thread(self._raise_to, number)

    def _raise_to(self, number: int) -> None:
        if (self.read() or 0) < number:
            replace_file(self.path, f"{number}\n".encode(), mode=0o600)
