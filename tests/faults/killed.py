"""Follow a chain in a process that is killed with SIGKILL before its n-th SQL statement. Run by test_crashes.

One interpreter imports everything once and forks a child for each n: a child is a whole node's follower, and dies for real.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from sqlalchemy import event

from tests.chain.anvil import Anvil, AnvilAgreement
from tests.chain.node import FollowingNode
from tests.faults.processes import run_forked


async def follow(url: str, address: str, block: int, database: str, kill_at: int) -> int:
    """Follow to the head; returns how many statements the writer executed."""
    count = 0

    def executed(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    async with (
        Anvil.connect(url) as chain,
        FollowingNode(AnvilAgreement(chain, address, block), database, cross_check_interval=600.0, settle_every=3) as node,
    ):
        engine = node.database._writer.sync_engine
        event.listen(engine, "before_cursor_execute", executed)
        event.listen(engine, "commit", executed)
        await node.wait_for_head(60.0)
        await node.wait_until(lambda: not node.follower.proof_queue.waiting if node.follower.proof_queue else False, what="proofs")
    return count


def main() -> None:
    """Kill at 1, 2, 3, ... each on a database of its own, restart, follow to the end; print the databases."""
    url, address, block, folder, most = sys.argv[1:]
    done = []
    for kill_at in range(1, int(most) + 1):
        database = f"sqlite+aiosqlite:///{folder}/{kill_at}.db"
        if run_forked(follow(url, address, int(block), database, kill_at), f"killed at {kill_at}") is not None:
            break
        run_forked(follow(url, address, int(block), database, 0), f"started again after {kill_at}")
        done.append(kill_at)
    print(json.dumps(done))  # noqa: T201


if __name__ == "__main__":
    main()
