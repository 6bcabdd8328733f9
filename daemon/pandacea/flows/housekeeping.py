"""What a long-running node throws away: old results, delivered messages, spent nonces."""

from __future__ import annotations

import shutil
from pathlib import Path

from pandacea.flows.ports import Books, Clock

KEEP_DELIVERED = 86_400.0
"""Seconds a delivered message stays for inspection."""


async def sweep(books: Books, clock: Clock, results_dir: Path, keep_seconds: float) -> int:
    """Remove the bytes of results older than `keep_seconds`; rows, manifests and charges stay. Returns how many."""
    now = clock.now()
    async with books.read() as view:
        old = await view.jobs.ended_before(now - keep_seconds)
    for computation_id in old:
        # The row first: a crash in between leaves a folder that the next start's sweep of unknown folders removes.
        async with books.write() as work:
            await work.jobs.forget_result(computation_id, now)
            await work.commit()
        shutil.rmtree(results_dir / computation_id, ignore_errors=True)
    async with books.write() as work:
        await work.outbox.prune(now - KEEP_DELIVERED)
        await work.nonces.prune(int(now) - 600)
        await work.commit()
    return len(old)
