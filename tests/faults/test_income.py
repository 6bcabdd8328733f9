"""`pandacea income` against the contract's own balances: leases of every end, of two products, and the gas of all that was sent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from pandacea.app.commands.income import load_income
from pandacea.cli.income import income_members, render_income
from pandacea.config import load_config
from pandacea.domain.ids import Address, BlockNumber, Hash32, LeaseId, LeaseKey, Wei
from pandacea.domain.lease import Lease, LeaseStatus
from pandacea.flows.settlement.income import GasCost, IncomeRow, LeaseIncome, sum_income
from tests.chain.anvil import EARNER, OPERATOR, OWNER, PRODUCT, SPENDER, AnvilAgreement, encode_call
from tests.faults.settling import settling_node, write_config

OTHER_PRODUCT = "0x" + "0d" * 32
DAY = 86_400
NOVEMBER, DECEMBER = datetime(2026, 11, 30, tzinfo=UTC).timestamp(), datetime(2026, 12, 1, tzinfo=UTC).timestamp()


async def _send(agreement: AnvilAgreement, by: object, call: str, *words: str | int, value: int = 0) -> None:
    await agreement.chain.send_transaction(by, agreement.address, encode_call(call, *words), value=value)  # type: ignore[arg-type]  # a LocalAccount


async def _approved(agreement: AnvilAgreement, price: int, product: str = PRODUCT) -> str:
    lease = await agreement.create(price=price, most=1, product=product)
    await agreement.approve(lease)
    return lease


async def _executed(agreement: AnvilAgreement, price: int, product: str = PRODUCT) -> str:
    lease = await _approved(agreement, price, product)
    await agreement.commit(lease, "0x" + "22" * 32)
    await agreement.execute(lease)
    return lease


async def _dispute(agreement: AnvilAgreement, lease: str, price: int) -> None:
    reason = "0x" + encode_call("raiseDispute(bytes32,string)", lease, 64, 0)[2:]
    await agreement.chain.send_transaction(SPENDER, agreement.address, reason, value=price // 10)


async def _held(agreement: AnvilAgreement, address: str) -> int:
    return int(await agreement.chain.call_method("eth_getBalance", address, "latest"), 16)


def _sums(rows: Sequence[IncomeRow], product: str) -> tuple[int, int, int]:
    mine = [row for row in rows if row.product == product]
    return sum(row.leases for row in mine), sum(row.leased_wei for row in mine), sum(row.pending_wei for row in mine)


async def test_it_is_what_the_contract_holds_and_the_chain_took(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Earned: the Earner's credit. Pending and credits together: all that the contract holds. Gas: what the operator's wallet lost."""
    async with settling_node(agreement, tmp_path) as node:
        wallet = await _held(agreement, OPERATOR.address)
        by_node = LeaseId(await agreement.create(price=1_000, most=1))
        await node.node.wait_for_head()
        await node.sender.call_lease("approveLease", by_node)
        await node.let_mine()
        batch = [await _approved(agreement, 300, OTHER_PRODUCT), await _approved(agreement, 500)]
        await node.release(by_node, "a")
        await node.release(batch[0], "b")
        await node.release(batch[1], "c")
        await node.settle()
        await node.finish()
        finalized = await _executed(agreement, 7_000, OTHER_PRODUCT)
        await _send(agreement, SPENDER, "finalizeLease(bytes32)", finalized)
        won = await _executed(agreement, 10_000)
        await _dispute(agreement, won, 10_000)
        await _send(agreement, OWNER, "resolveDispute(bytes32,bool)", won, 0)
        lost = await _executed(agreement, 20_000)
        await _dispute(agreement, lost, 20_000)
        await _send(agreement, OWNER, "resolveDispute(bytes32,bool)", lost, 1)
        halved = await _executed(agreement, 40_000)
        await _dispute(agreement, halved, 40_000)
        await agreement.chain.call_method("evm_increaseTime", 31 * DAY)
        await agreement.chain.mine_blocks(1)
        await _send(agreement, SPENDER, "splitDispute(bytes32)", halved)
        await agreement.cancel(await _approved(agreement, 80_000))
        await agreement.create(price=0)  # never approved: not in the books
        await agreement.chain.mine_blocks(8)
        await node.finish()
        rows = await load_income(load_config(write_config(node, tmp_path)))
        credited = [await agreement.credit_of(account.address) for account in (EARNER, SPENDER)]
        assert sum(row.earned_wei for row in rows) == credited[0] == 7_000 + 11_000 + 20_000
        assert sum(row.pending_wei for row in rows) + sum(credited) == await _held(agreement, agreement.address)
        assert sum(row.gas_wei for row in rows) == wallet - await _held(agreement, OPERATOR.address)
        assert not any(row.gas_is_bound for row in rows)
        assert _sums(rows, PRODUCT) == (6, 151_500, 1_500)
        assert _sums(rows, OTHER_PRODUCT) == (2, 7_300, 300)
        assert len({row.month for row in rows}) >= 2, "the last lease is a month younger"


def _lease(number: int, price: int, status: LeaseStatus, product: str | None) -> Lease:
    key = LeaseKey(1, Address("0x" + "0c" * 20), LeaseId(f"0x{number:064x}"))
    parties = Address("0x" + "05" * 20), Address("0x" + "0e" * 20)
    named = None if product is None else Hash32(product)
    return Lease(key, *parties, Wei(price), BlockNumber(1), status, named)


@given(
    costs=st.lists(st.tuples(st.integers(0, 10**20), st.lists(st.integers(0, 5), max_size=20)), max_size=10),
    times=st.lists(st.sampled_from((NOVEMBER, DECEMBER)), min_size=4, max_size=4),
)
def test_no_wei_of_gas_is_lost_or_counted_twice(costs: list[tuple[int, list[int]]], times: list[float]) -> None:
    """Whatever a transaction was for, known leases or not: the rows' gas is what was paid."""
    leases = [
        LeaseIncome(_lease(number, 5, LeaseStatus.FINALIZED, PRODUCT if number % 2 else None), int(at), 5)
        for number, at in enumerate(times)
    ]
    gas = [GasCost(wei, tuple(LeaseId(f"0x{number:064x}") for number in numbers), NOVEMBER) for wei, numbers in costs]
    rows = sum_income(leases, gas, {Hash32(PRODUCT): "diabetes"})
    assert sum(row.gas_wei for row in rows) == sum(wei for wei, _ in costs)
    assert sum(row.earned_wei for row in rows) == 20
    assert {row.product for row in rows} <= {"diabetes", "-"}
    assert [(row.month, row.product) for row in rows] == sorted({(row.month, row.product) for row in rows})


def test_each_amount_is_shown_in_wei_and_in_ether() -> None:
    """To the last wei, in each form; a bound says that it is one."""
    row = IncomeRow("2026-11", "diabetes", 2, 3 * 10**16 + 1, 10**16, 2 * 10**16, 7, gas_is_bound=True)
    [line] = render_income([row])
    assert "2 leases: leased 0.030000000000000001 ether (30000000000000001 wei)" in line
    assert line.endswith("gas 0.000000000000000007 ether (7 wei) at most")
    members = income_members(row)
    assert (members["earned_wei"], members["earned_ether"]) == ("10000000000000000", "0.01")
    assert all(re.fullmatch(r"[0-9]+", str(members[f"{name}_wei"])) for name in ("leased", "earned", "pending", "gas"))
    assert render_income([]) == ["No lease of this Earner was approved yet."]
