"""Killed between any two steps of a commitment, the node that starts again ends it with exactly one effect."""

from __future__ import annotations

from pathlib import Path

from tests.chain.anvil import AnvilAgreement
from tests.faults.processes import run_module
from tests.faults.settling import settling_node


async def test_killed_between_any_two_steps(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """SIGKILL before each statement and commit, before the transaction leaves and after its answer: one transaction, one result."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease()
        await earner.node.wait_for_proof(lease)
        await earner.release(lease, "a")
    ended = await run_module(
        "tests.faults.killed_sender", agreement.chain.url, agreement.address, str(tmp_path / "node.db"), lease, str(tmp_path)
    )
    assert len(ended) >= 6, "signing, sending and noting are several steps"
    for place, found in enumerate(ended, 1):
        assert found["committed"], f"killed at step {place}: {found}"
        assert (found["waiting"], found["nonce"], found["rows"]) == (0, 1, ["final"]), f"killed at step {place}: {found}"
