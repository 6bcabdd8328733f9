"""Commit a result in a process that is killed with SIGKILL at its n-th step: before a statement, before a request, after an answer.

Run by test_killed_sender. One interpreter imports everything once and forks a child for each n, as `killed` does; the chain is put back
to the same snapshot before each.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import event

from pandacea.chain.rpc import Endpoint
from tests.chain.anvil import Anvil, AnvilAgreement
from tests.faults.processes import run_forked
from tests.faults.settling import settling_node


async def commit(url: str, address: str, folder: Path, lease: str, kill_at: int) -> dict[str, Any]:
    """Send what waits, and be killed; with `kill_at` 0 finish instead. Returns how it ended, and the number of steps."""
    steps = 0

    def step(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    asked = Endpoint.call_nullable

    async def call_nullable(self: Endpoint, method: str, params: Sequence[Any], shape: Any) -> Any:
        if method == "eth_sendRawTransaction":
            step()
        answer = await asked(self, method, params, shape)
        if method == "eth_sendRawTransaction":
            step()
        return answer

    Endpoint.call_nullable = call_nullable  # type: ignore[method-assign]
    options: dict[str, Any] = {"name_operator": False, "cross_check_interval": 600.0, "settle_every": 1000}
    async with Anvil.connect(url) as chain, settling_node(AnvilAgreement(chain, address, 0), folder, **options) as earner:
        engine = earner.node.database._writer.sync_engine
        event.listen(engine, "before_cursor_execute", step)
        event.listen(engine, "commit", step)
        if kill_at == 0:
            await earner.resend()
        steps = 0
        await earner.settle_when_due()
        taken = steps
        if kill_at == 0:
            await earner.finish()
            await earner.finish()
        return {
            "steps": taken,
            "waiting": await earner.waiting(),
            "nonce": await earner.nonce(),
            "committed": await earner.committed(lease, "a"),
            "rows": await earner.states(),
        }


async def call_anvil(url: str, method: str, *params: Any) -> Any:
    """Call a method of anvil over a connection of its own."""
    async with Anvil.connect(url) as chain:
        return await chain.call_method(method, *params)


def main() -> None:
    """Kill at 1, 2, 3, ... each on a copy of the database and of the chain, start again, finish; print how each ended."""
    url, address, seed, lease, folder = sys.argv[1:]
    ended = []
    for kill_at in range(1, 200):
        snapshot = asyncio.run(call_anvil(url, "evm_snapshot"))
        place = Path(folder) / str(kill_at)
        place.mkdir()
        (place / "node.db").write_bytes(Path(seed).read_bytes())
        killed = run_forked(commit(url, address, place, lease, kill_at), f"killed at {kill_at}") is None
        found = run_forked(commit(url, address, place, lease, 0), f"started again after {kill_at}")
        asyncio.run(call_anvil(url, "evm_revert", snapshot))
        if not killed:
            break
        assert found is not None
        ended.append(found)
    print(json.dumps(ended))  # noqa: T201


if __name__ == "__main__":
    main()
