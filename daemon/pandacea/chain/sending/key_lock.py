"""Locks the sending key across the processes of this machine: two that took a nonce at once would both take the same one."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from pandacea.errors import Unavailable

WAIT_SECONDS: Final = 20.0
"""How long another process is waited for."""


@asynccontextmanager
async def hold_key(keystore: Path | None) -> AsyncIterator[None]:
    """Hold the key of a keystore until the block ends; the lock is the file's own, so it needs no folder that both may write.

    Raises:
        Unavailable: another process holds it for longer than a moment, or the file is gone.
    """
    if keystore is None:
        yield
        return
    try:
        descriptor = os.open(keystore, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as problem:
        raise Unavailable(f"The keystore {keystore} cannot be opened ({problem.strerror}).") from problem
    try:
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not _try_lock(descriptor):
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise Unavailable(f"Another process is sending with the key in {keystore}. It is tried again.") from None
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
