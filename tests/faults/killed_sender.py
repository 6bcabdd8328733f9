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

import aiohttp
from sqlalchemy import event

from pandacea.chain.rpc import Endpoint
from tests.chain.anvil import Anvil, AnvilAgreement
from tests.faults.settling import settling_node


async def commit(url: str, address: str, folder: Path, lease: str, kill_at: int) -> dict[str, Any]:
    """Send what waits, and be killed; with `kill_at` 0 finish instead. Returns how it ended, and the number of steps."""
    chain = Anvil()
    chain.url, chain._session = url, aiohttp.ClientSession()
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
    agreement = AnvilAgreement(chain, address, 0)
    async with settling_node(agreement, folder, name_operator=False, cross_check_interval=600.0, settle_every=1000) as earner:
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
        ended = {
            "steps": taken,
            "waiting": await earner.waiting(),
            "nonce": await earner.nonce(),
            "committed": await earner.committed(lease, "a"),
            "rows": await earner.states(),
        }
    await chain._session.close()
    return ended


async def rpc(url: str, method: str, *params: Any) -> Any:
    """Call a method of anvil over a connection of its own."""
    async with aiohttp.ClientSession() as session:
        chain = Anvil()
        chain.url, chain._session = url, session
        return await chain.call_method(method, *params)


def child(url: str, address: str, folder: Path, lease: str, kill_at: int) -> dict[str, Any] | None:
    """Run in a forked child; None when it was killed, else how it ended."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        try:
            sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - for the child's whole life
            said = json.dumps(asyncio.run(commit(url, address, folder, lease, kill_at)))
        except BaseException as problem:  # noqa: BLE001 - a forked child must not fall through into the parent's code
            said = f"! {problem!r}"[:4000]
        os.write(writable, said.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    if answer.startswith("!") or not answer:
        raise SystemExit(f"child with kill_at={kill_at}: {answer or status}")
    found: dict[str, Any] = json.loads(answer)
    return found


def main() -> None:
    """Kill at 1, 2, 3, ... each on a copy of the database and of the chain, start again, finish; print how each ended."""
    url, address, seed, lease, folder = sys.argv[1:]
    ended = []
    for kill_at in range(1, 200):
        snapshot = asyncio.run(rpc(url, "evm_snapshot"))
        place = Path(folder) / str(kill_at)
        place.mkdir()
        (place / "node.db").write_bytes(Path(seed).read_bytes())
        killed = child(url, address, place, lease, kill_at) is None
        found = child(url, address, place, lease, 0)
        asyncio.run(rpc(url, "evm_revert", snapshot))
        if not killed:
            break
        assert found is not None
        ended.append(found)
    print(json.dumps(ended))  # noqa: T201


if __name__ == "__main__":
    main()
