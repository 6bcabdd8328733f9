"""Follow a chain in a process that is killed with SIGKILL before its n-th SQL statement. Run by test_crashes.

One interpreter imports everything once and forks a child for each n: a child is a whole node's follower, and dies for real.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from sqlalchemy import event

from tests.chain.anvil import Anvil, AnvilAgreement
from tests.chain.node import FollowingNode


async def follow(url: str, address: str, block: int, database: str, kill_at: int) -> int:
    """Follow to the head; returns how many statements the writer executed."""
    chain = Anvil()
    chain.url = url
    node = FollowingNode(AnvilAgreement(chain, address, block), database, cross_check_interval=600.0, settle_every=3)
    count = 0

    def executed(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    import aiohttp

    chain._session = aiohttp.ClientSession()
    async with node:
        engine = node.database._writer.sync_engine
        event.listen(engine, "before_cursor_execute", executed)
        event.listen(engine, "commit", executed)
        await node.wait_for_head(60.0)
        await node.wait_until(lambda: not node.follower.proof_queue.waiting if node.follower.proof_queue else False, what="proofs")
    await chain._session.close()
    return count


def child(arguments: list[str], kill_at: int) -> int | None:
    """Run in a forked child; None when it was killed, else its number of statements."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        try:
            sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the child's whole life
            url, address, block, database = arguments
            count = asyncio.run(follow(url, address, int(block), database, kill_at))
            os.write(writable, str(count).encode())
            os._exit(0)
        except BaseException as problem:  # noqa: BLE001 - a forked child must not fall through into the parent's code
            os.write(writable, f"! {problem!r}".encode()[:4000])
            os._exit(1)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    if said.startswith("!") or not said:
        raise SystemExit(f"child with kill_at={kill_at}: {said or status}")
    return int(said)


def main() -> None:
    """Kill at 1, 2, 3, ... each on a database of its own, restart, follow to the end; print the databases."""
    url, address, block, folder, most = sys.argv[1:]
    done = []
    for kill_at in range(1, int(most) + 1):
        database = f"sqlite+aiosqlite:///{folder}/{kill_at}.db"
        arguments = [url, address, block, database]
        if child(arguments, kill_at) is not None:
            break
        child(arguments, 0)
        done.append(kill_at)
    print(json.dumps(done))  # noqa: T201


if __name__ == "__main__":
    main()
