"""Row 15: killed at any statement, nothing is lost and nothing is doubled."""

from __future__ import annotations

from pathlib import Path

from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from tests.chain.anvil import Anvil
from tests.chain.node import FollowingNode, rebuilt_node
from tests.faults.conftest import STATEMENTS
from tests.faults.processes import run_module

COMPUTATION = "0x" + "22" * 32


async def test_row_15_crash_between_logs_and_checkpoint(anvil: Anvil, tmp_path: Path) -> None:
    """Killed with SIGKILL before each SQL statement and each commit of a backfill, the node restarts to the rows of a rebuild."""
    agreement = await anvil.deploy_agreement()
    await anvil.mine_blocks(2)
    for number in range(3):
        lease = await agreement.create(price=number + 1)
        await agreement.approve(lease)
        if number == 1:
            await agreement.commit(lease, COMPUTATION)
            await agreement.cancel(lease)
    seed = await DatabaseEngine.open(f"sqlite+aiosqlite:///{tmp_path}/seed.db")
    await upgrade(seed)
    await seed.close()
    killed = await run_module(
        "tests.faults.killed", anvil.url, agreement.address, str(agreement.block), str(tmp_path), str(STATEMENTS)
    )
    assert len(killed) >= min(STATEMENTS, 30), "every statement of the catch-up was a place to die"
    async with rebuilt_node(agreement, tmp_path) as fresh:
        expected = await fresh.rows_and_cache()
        assert len(expected[0]) == 3
    for kill_at in killed:
        async with FollowingNode(agreement, tmp_path / f"{kill_at}.db") as node:
            await node.wait_for_head()
            assert await node.rows_and_cache() == expected, f"killed before statement {kill_at}"
