"""Commitments that wait travel together; what the contract leaves out of a batch is handled like a refusal of it alone."""

from __future__ import annotations

from pathlib import Path

from pandacea.chain.sending.fees import FeeLimits
from pandacea_sdk.protocol.contract import function_selector
from tests.chain.anvil import AnvilAgreement
from tests.faults.proxy import FaultProxy
from tests.faults.settling import settling_node, word


async def test_those_that_wait_travel_together(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Twenty to a transaction, of any leases; a single one goes by commitResult."""
    async with settling_node(agreement, tmp_path) as earner:
        one, other = await earner.lease(most=40), await earner.lease(most=40)
        await earner.release(one, *(f"a{number}" for number in range(25)))
        await earner.release(other, *(f"b{number}" for number in range(16)))
        await earner.settle()
        await earner.finish()
        rows = await earner.rows()
        assert [row.purpose.partition(":")[0] for row in rows] == ["commitResults", "commitResults", "commitResult"]
        single = function_selector("commitResult(bytes32,bytes32,bytes32)").hex()
        assert [single in row.raw for row in rows] == [False, False, True]
        assert (await earner.waiting(), await earner.nonce()) == (0, 3)


async def test_one_that_is_refused_does_not_hold_the_others(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """What the contract would refuse now is left out before it costs anything, and waits with its reason."""
    async with settling_node(agreement, tmp_path) as earner:
        good, gone = await earner.lease(), await earner.lease()
        await agreement.cancel(gone)
        await earner.release(good, "a", "b")
        await earner.release(gone, "c")
        await earner.settle()
        assert "WrongStatus" in str((await earner.notes())[f"commit:{word('c')}"])
        await earner.finish()
        assert list((await earner.notes()).values()) == ["committed", "committed", "refused: the lease is cancelled on-chain"]
        assert await earner.nonce() == 1


async def test_one_that_the_contract_leaves_out(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Cancelled while the batch is in the pool: CommitmentRefused for it alone, which ends by the followed chain."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        good, gone = await earner.lease(), await earner.lease()
        await chain.call_method("evm_setAutomine", False)
        await earner.release(good, "a")
        await earner.release(gone, "c")
        await earner.settle()
        await earner.cancel_before_it(gone)
        await chain.mine_blocks(1)
        await earner.finish()
        assert list((await earner.notes()).values()) == ["committed", "refused: the lease is cancelled on-chain"]
        assert await earner.nonce() == 1


async def test_a_cap_too_low_for_a_batch_makes_smaller_ones(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """What one transaction may cost decides how many travel in it."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease(most=20)
        await earner.release(lease, "first")
        await earner.settle()
        [row] = await earner.rows()
        earner.sender._limits = FeeLimits(max_wei_per_transaction=3 * row.max_cost)
        await earner.release(lease, *(f"a{number}" for number in range(16)))
        await earner.settle()
        await earner.finish()
        assert await earner.waiting() == 0
        assert 2 < await earner.nonce() < 17


async def test_two_hundred_results_within_twenty_blocks(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Batches do not wait for each other: they are in the pool together."""
    chain = agreement.chain
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease(most=200)
        await chain.call_method("evm_setAutomine", False)
        before = await chain.head_number()
        await earner.release(lease, *(f"r{number}" for number in range(200)))
        while await earner.waiting():
            await earner.settle()
            await earner.resend()
            await chain.mine_blocks(1)
            assert await chain.head_number() - before <= 20
        assert await earner.nonce() == 10


async def test_after_an_answer_that_was_lost_nothing_is_sent_twice(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """A batch in the pool holds its commitments: the next step sends only those that are in none."""
    async with FaultProxy(agreement.chain.url) as proxy, settling_node(agreement, tmp_path, urls=[proxy.url]) as earner:
        lease = await earner.lease()
        await agreement.chain.call_method("evm_setAutomine", False)
        await earner.release(lease, "a", "b")
        await earner.settle()
        await earner.release(lease, "c")
        await earner.settle_when_due()
        firsts = [row.purpose.partition(":")[0] for row in await earner.rows() if row.attempt == 0]
        assert firsts == ["commitResults", "commitResult"]
