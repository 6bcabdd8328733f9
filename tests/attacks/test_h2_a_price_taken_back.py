"""A Spender computes, waits until a day after the expiry, and takes the whole price back: nothing was ever committed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pandacea.config.sections import SettlementSection
from pandacea.domain.ids import Address
from pandacea.flows.settlement.close_leases import ClosePorts, close_leases
from pandacea.flows.settlement.commit_results import CommitPorts, Posting
from tests.chain.anvil import EARNER, SPENDER, AnvilAgreement, encode_call
from tests.faults.settling import DEPTH, SettlingNode, settling_node

ROOT = Path(__file__).parents[2]
PRICE = 1_000
DAY = 86_400


async def _node_works_on(earner: SettlingNode) -> None:
    """Both loops of settlement, as often as they have something to do until the day after the expiry is over."""
    owner = Address(EARNER.address.lower())
    closing = ClosePorts(earner.database, earner.sender, earner.leases, earner.ports.posting, owner, earner.sender.address)
    await earner.settle()
    await earner.finish()
    await earner.chain.mine_blocks(8)
    await earner.finish()
    await earner.chain.call_method("evm_increaseTime", DAY)
    await earner.chain.mine_blocks(DEPTH + 1)
    await earner.node.wait_for_head()
    await close_leases(closing)
    await earner.let_mine()
    await earner.chain.call_method("evm_increaseTime", DAY + 60)
    await earner.chain.mine_blocks(1)


def test_what_is_set_where_nothing_is_set() -> None:
    """Defaults, and the configuration that `pandacea init` writes, commit what is paid for."""
    assert SettlementSection().post_results == "priced"
    assert CommitPorts.__dataclass_fields__["posting"].default is Posting.PRICED
    assert yaml.safe_load((ROOT / "config.yaml").read_text())["settlement"]["post_results"] == "priced"


async def test_the_price_of_delivered_work_is_not_paid_back(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """As it was played, under the default setting: one run of five is used; a day after the expiry the contract refuses the Spender."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await earner.lease(days=1)
        await earner.release(lease, "a")
        await _node_works_on(earner)
        with pytest.raises(AssertionError, match="reverted"):
            await agreement.cancel(lease, by=SPENDER)
        await agreement.chain.send_transaction(SPENDER, agreement.address, encode_call("finalizeLease(bytes32)", lease))
        assert (await agreement.credit_of(SPENDER.address), await agreement.credit_of(EARNER.address)) == (0, PRICE)


async def test_without_settlement_it_would_be(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """What the default prevents: the same steps with `post_results: false`, where the Spender has result and price."""
    async with settling_node(agreement, tmp_path) as earner:
        earner.ports.posting = Posting.NONE
        lease = await earner.lease(days=1)
        await earner.release(lease, "a")
        await _node_works_on(earner)
        await agreement.cancel(lease, by=SPENDER)
        assert (await agreement.credit_of(SPENDER.address), await agreement.credit_of(EARNER.address)) == (PRICE, 0)
