"""One Spender sends scripts of six hundred bytes that take seconds to check, and every other script of the node waits behind them.

Each `finally` is compiled twice: seventeen of them in each other are 131,072 copies. Two scripts were checked at a time, in the order in
which they came, whoever sent them; and a script that is refused costs its Spender nothing.
"""

from __future__ import annotations

import asyncio

from pandacea.codecheck.check import ChildCodeChecker
from pandacea.domain.ids import Address, LeaseId
from tests.fakes import cached_lease
from tests.jobs.conftest import EXECUTE, OTHER, JobAnswer, Served, served

__all__ = ["served"]

OTHERS_LEASE = LeaseId("0x" + "2e" * 32)
BOMBS, DEPTH = 12, 15


def bomb(number: int) -> str:
    """A script that takes most of a second; the node never checked it before."""
    nested = "".join(f"{' ' * depth}try: pass\n{' ' * depth}finally:\n" for depth in range(DEPTH))
    return f"# {number}\n{nested}{' ' * DEPTH}import os\n"  # `os` is refused, so that nothing is made of it


async def test_a_neighbours_script_does_not_wait_for_all_of_one_spenders(served: Served) -> None:
    """As it was played: a dozen at once, and one of somebody else. Hers is checked after two of them at most, and one that began."""
    object.__setattr__(served.world.submit, "checker", ChildCodeChecker())
    served.world.lease_cache.change_lease(cached_lease(lease_id=OTHERS_LEASE, spender=Address(OTHER.address), max_computations=50))

    async def sends(number: int) -> JobAnswer:
        return await served.send("POST", EXECUTE, served.body(bomb(number)), Prefer="respond-async")

    bombs = [asyncio.create_task(sends(number)) for number in range(BOMBS)]
    await asyncio.sleep(0.5)
    body = {**served.body("print(1)"), "lease_id": OTHERS_LEASE}
    assert (await served.send("POST", EXECUTE, body, signer=OTHER, Prefer="respond-async")).status == 202
    before = sum(task.done() for task in bombs)
    assert {answer.code for answer in await asyncio.gather(*bombs)} == {"code-import-refused"}
    assert before <= 4, f"{before} scripts of one Spender were checked first"
