"""Measure what settling costs: gas alone and in a batch, blocks for 200 results, the event loop's longest pause, and waste under reorgs.

    python benchmarks/settle.py [--json FILE]

A real anvil, a follower, the outbox and the sender of the node, all in this process; a block is mined by the benchmark.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
for place in (ROOT, ROOT / "daemon"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

from tests.chain.anvil import Anvil
from tests.faults.settling import DEPTH, SettlingNode, settling_node

RESULTS = 200
UNDER_REORGS = 20
"""Results committed one by one while the chain is reorganised."""


async def gas_of(earner: SettlingNode, *names: str) -> int:
    """Commit some results in one transaction; return the gas of each."""
    lease = await earner.lease(most=len(names))
    before = len(await earner.rows())
    await earner.release(lease, *names)
    await earner.settle()
    row = (await earner.rows())[before]
    used = int((await earner.chain.wait_for_receipt(row.tx_hash))["gasUsed"], 16)
    await earner.finish()
    return used // len(names)


async def count_blocks(earner: SettlingNode) -> tuple[int, float]:
    """Commit 200 results; return the blocks until the last is in the chain, and the event loop's longest pause in milliseconds."""
    lease = await earner.lease(most=RESULTS)
    await earner.chain.call_method("evm_setAutomine", False)
    await earner.release(lease, *(f"blocks {number}" for number in range(RESULTS)))
    pauses = [0.0]

    async def watch() -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(0.001)
            pauses.append((time.perf_counter() - begun - 0.001) * 1000)

    watching = asyncio.create_task(watch())
    before, nonce = await earner.chain.head_number(), await earner.nonce()
    while await earner.nonce() - nonce < RESULTS // 20:
        await earner.settle()
        await earner.sender.resend_undone()
        await earner.chain.mine_blocks(1)
    blocks = await earner.chain.head_number() - before
    watching.cancel()
    await earner.chain.call_method("evm_setAutomine", True)
    await earner.finish()
    return blocks, max(pauses)


async def count_transactions(earner: SettlingNode, seed: int) -> float:
    """Commit results one by one under random reorganisations below finality; return the transactions of the key for each result."""
    chance = random.Random(seed)
    lease = await earner.lease(most=UNDER_REORGS)
    before = await earner.nonce()
    for number in range(UNDER_REORGS):
        await earner.release(lease, f"reorg {number}")
        await earner.settle()
        for _ in range(chance.randrange(3)):
            await earner.resend()
            await earner.chain.reorg(chance.randint(1, DEPTH))
            await earner.resend()
        await earner.finish()
    assert await earner.waiting() == 0
    return (await earner.nonce() - before) / UNDER_REORGS


async def measure() -> dict[str, float]:
    """Measure each figure once, on one chain, and return them by name."""
    with tempfile.TemporaryDirectory() as folder:
        async with Anvil("--slots-in-an-epoch", "40") as chain:
            agreement = await chain.deploy_agreement()
            async with settling_node(agreement, Path(folder)) as earner:
                await gas_of(earner, "warm")
                single = await gas_of(earner, "single")
                each = await gas_of(earner, *(f"batch {number}" for number in range(20)))
                blocks, pause = await count_blocks(earner)
                waste = await count_transactions(earner, seed=1)
    return {
        "commit_gas_single": single,
        "commit_gas_each_of_20": each,
        "blocks_for_200_results": blocks,
        "loop_block_ms_max": round(pause, 1),
        "transactions_per_result_under_reorgs": waste,
    }


def main() -> None:
    """Measure, print, and write the figures to a file where one is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    asked = parser.parse_args()
    found = json.dumps(asyncio.run(measure()), indent=2)
    print(found)
    if asked.json is not None:
        asked.json.write_text(found + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
