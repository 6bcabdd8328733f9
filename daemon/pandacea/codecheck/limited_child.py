"""Run one of the node's programs over a stranger's text in a process of its own: with limits, a deadline and no environment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from pandacea.errors import Unavailable

DEADLINE_SECONDS: Final = 10.0
"""Wall-clock time that a child may take. It limits its own processor time and memory before it reads a byte."""
MAX_CHILDREN: Final = 2
"""Children of one program at once."""


class LimitedChild:
    """Runs `program` once per text, in at most two processes at once."""

    def __init__(self, program: Path, python: str) -> None:
        """`python`: the interpreter whose grammar reads the scripts."""
        self._program, self._python = program, python
        self._slots = asyncio.Semaphore(MAX_CHILDREN)

    async def run_over(self, text: str) -> bytes | None:
        """Run the program with `text` on its standard input; return its standard output, or None when the text ended it.

        Raises:
            Unavailable: the process could not be started, or failed for another reason than the text.
        """
        async with self._slots:
            return await self._run(text.encode())

    async def _run(self, text: bytes) -> bytes | None:
        try:
            child = await asyncio.create_subprocess_exec(
                *(self._python, "-I", "-S", "-B", "-W", "ignore", "-X", "utf8", str(self._program)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},
            )
        except OSError as error:
            raise Unavailable(f"The script cannot be checked now: {error.strerror}. Try again.", retry_after=5) from error
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                out, _ = await child.communicate(text)
        except TimeoutError:
            return None
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode and child.returncode > 0:  # a text ends the child by a signal or not at all
            raise Unavailable("The script cannot be checked now: the checking process failed. Tell the Earner.", retry_after=60)
        return out if child.returncode == 0 else None
