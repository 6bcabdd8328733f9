"""Runs a program of ours over a stranger's text in a process of its own: with limits, a deadline and no environment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from pandacea.errors import Unavailable

DEADLINE_SECONDS: Final = 10.0
"""Wall-clock time a child may take; it limits its own processor time and memory before it reads a byte."""


async def run_limited_child(python: str, program: Path, text: bytes) -> bytes | None:
    """Run `program` with `text` as its standard input; return its standard output, or None when the text ended it.

    Raises:
        Unavailable: the process could not be started, or failed for another reason than the text.
    """
    try:
        child = await asyncio.create_subprocess_exec(
            *(python, "-I", "-S", "-B", "-W", "ignore", "-X", "utf8", str(program)),
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
    if child.returncode and child.returncode > 0:  # not the text's doing: that ends the child by a signal or not at all
        raise Unavailable("The script cannot be checked now: the checking process failed. Tell the Earner.", retry_after=60)
    return out if child.returncode == 0 else None
