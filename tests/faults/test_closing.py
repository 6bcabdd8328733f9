"""From a delivered result to the Earner's money: what is committed, executed and finalized without anybody asking."""

from __future__ import annotations

from pathlib import Path

import pytest

from pandacea.chain.contract_versions import ContractVersion
from pandacea.chain.sending.obstacles import find_obstacles
from pandacea.domain.ids import Address
from pandacea.flows.settlement.close_leases import ClosePorts, close_leases
from pandacea.flows.settlement.commit_results import Posting
from pandacea.flows.settlement.report import report_settlement
from tests.chain.anvil import EARNER, OPERATOR, AnvilAgreement
from tests.faults.settling import DEPTH, SettlingNode, settling_node, word

WEEK = 7 * 86_400


def _closing(earner: SettlingNode) -> ClosePorts:
    owner = Address(EARNER.address.lower())
    return ClosePorts(earner.database, earner.sender, earner.leases, Posting.PRICED, owner, earner.sender.address)


async def _status(earner: SettlingNode, lease_id: str) -> str:
    await earner.let_mine()
    await earner.node.wait_for_head()
    return str((await earner.node.read_rows())[lease_id].lease.status.value)


async def _settle_deep(earner: SettlingNode) -> None:
    await earner.finish()
    await earner.chain.mine_blocks(8)
    await earner.finish()


async def test_a_lease_that_is_used_up_is_executed_and_paid(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """All computations committed: executed at once; finalized after the dispute window, by the Earner's own key."""
    async with settling_node(agreement, tmp_path, name_operator=False, account=EARNER) as earner:
        lease = await earner.lease(most=2)
        ports = _closing(earner)
        await earner.release(lease, "a")
        await earner.settle()
        await _settle_deep(earner)
        await close_leases(ports)
        assert await _status(earner, lease) == "approved", "one computation is left"
        await earner.release(lease, "b")
        await earner.settle()
        await _settle_deep(earner)
        await close_leases(ports)
        assert await _status(earner, lease) == "executed"
        await _settle_deep(earner)
        await close_leases(ports)
        assert "TooEarly" in ports.reasons[next(iter(ports.reasons))]
        await earner.chain.call_method("evm_increaseTime", WEEK + 60)
        await earner.chain.mine_blocks(1)
        await close_leases(ports)
        assert await _status(earner, lease) == "finalized"
        assert ports.reasons == {}


async def test_a_lease_that_expired_is_executed(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Computations are left, and nobody can ask for them any more."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease(days=1)
        await earner.release(lease, "a")
        await earner.settle()
        await _settle_deep(earner)
        await earner.chain.call_method("evm_increaseTime", 86_400)
        await earner.chain.mine_blocks(DEPTH + 1)
        await earner.node.wait_for_head()
        await close_leases(_closing(earner))
        assert await _status(earner, lease) == "executed"


async def test_a_lease_with_a_result_that_waits_is_not_closed(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Its result would still be taken, but nothing is closed over what is not settled."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease(most=1)
        await agreement.commit(lease, word("by hand"))
        await earner.release(lease, "b")
        await _settle_deep(earner)
        await earner.release(lease, "c")
        await close_leases(_closing(earner))
        assert await _status(earner, lease) == "approved"


async def test_what_was_released_while_it_was_off_is_committed_when_it_is_on(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Off, results wait in the outbox; the report says how long, and that nothing was sent."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease()
        earner.ports.posting = Posting.NONE
        await earner.release(lease, "a")
        await earner.settle()
        assert (await earner.waiting(), await earner.nonce()) == (1, 0)
        report = await report_settlement(earner.database, earner.clock)
        assert "1 delivered result is not committed" in str(report.describe())
        earner.ports.posting = Posting.PRICED
        await earner.settle()
        await earner.finish()
        assert (await earner.waiting(), await earner.nonce()) == (0, 1)
        assert (await report_settlement(earner.database, earner.clock)).describe() is None


async def test_a_lease_without_a_price_costs_no_gas(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """There is nothing to be paid: its results are committed only where the operator asks for all."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await agreement.create(price=0)
        await agreement.approve(lease)
        await earner.chain.mine_blocks(DEPTH + 1)
        await earner.release(lease, "a")
        await earner.settle()
        assert await earner.notes() == {f"commit:{word('a')}": "not committed: the lease has no price"}
        earner.ports.posting = Posting.ALL
        await earner.release(lease, "b")
        await earner.settle()
        await earner.finish()
        assert await earner.committed(lease, "b")


@pytest.mark.parametrize(
    ("state", "told"),
    [("good", ""), ("not named", "setOperator"), ("poor", "Send it some"), ("off", "post_results is false"), ("v0", "no place")],
)
async def test_what_stands_in_the_way_is_told(state: str, told: str, agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Doctor and the start say it in a sentence with what to do: the operator's name on the contract, its balance, the setting."""
    async with settling_node(agreement, tmp_path, name_operator=state != "not named") as earner:
        if state == "poor":
            await earner.chain.call_method("anvil_setBalance", OPERATOR.address, "0x10")
        found = await find_obstacles(
            await earner.node.endpoints.pick_endpoint(),
            Address(agreement.address),
            ContractVersion.V0 if state == "v0" else ContractVersion.V1,
            Address(EARNER.address.lower()),
            earner.sender.address,
            Posting.NONE if state == "off" else Posting.PRICED,
        )
        assert found == [] if state == "good" else told in " ".join(found)
