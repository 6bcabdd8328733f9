"""Leases that are approved by rule, on a chain: sent once, within the limits through a restart, and each says by which rule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from structlog.testing import capture_logs

from pandacea.app.commands.leases import list_leases
from pandacea.app.factories import approval_policy_of
from pandacea.config import load_config
from pandacea.config.sections import ApprovalSection
from pandacea.domain.auto_approval import ApprovalPolicy, life_gas
from pandacea.domain.chain_view import ChainView
from pandacea.domain.ids import Address, Hash32, LeaseId, Wei
from pandacea.flows.following.chain_store import ChainStore
from pandacea.flows.settlement.approve_leases import ApprovePorts, approve_requested
from pandacea.flows.unit_of_work import Channel
from tests.chain.anvil import PRODUCT, SPENDER, STRANGER, AnvilAgreement
from tests.fakes import FakeCatalogue, product
from tests.faults.settling import SettlingNode, settling_node, write_config
from tests.messages import check_message

PRICE = 10**16
ANYBODY = ApprovalPolicy(1, 86_400, per_spender_per_day=2, per_day=3, spenders=frozenset())


def _ports(node: SettlingNode, folder: Path, policy: ApprovalPolicy) -> ApprovePorts:
    def read_chain() -> tuple[ChainStore, ChainView]:
        assert node.node.follower.chain_store is not None
        return node.node.follower.chain_store, node.node.view

    offered = FakeCatalogue(replace(product(folder / "a.csv"), product_hash=Hash32(PRODUCT), price=Wei(PRICE)))
    return ApprovePorts(node.database, read_chain, node.store, node.sender, offered, node.clock, policy)


async def _approve(node: SettlingNode, ports: ApprovePorts) -> list[str]:
    """One step of the loop; return the leases that it approved, as the log says."""
    await node.node.wait_for_head()
    with capture_logs() as logs:
        await approve_requested(ports)
    await node.let_mine()
    return [line["lease_id"] for line in logs if line["event"] == "lease.auto_approved"]


async def _status(node: SettlingNode, lease: str) -> str:
    await node.node.wait_for_head()
    return str((await node.node.read_rows())[lease].lease.status.value)


def test_it_is_off_where_nothing_is_set(tmp_path: Path) -> None:
    """No policy, no loop."""
    assert ApprovalSection().auto is False
    config = tmp_path / "config.yaml"
    config.write_text(
        f'blockchain: {{rpc_url: "http://127.0.0.1:1", chain_id: 1, contract_address: "{STRANGER.address}"}}\n'
        f'earner: {{address: "{SPENDER.address}", keystore: k.json}}\nprivacy: {{data_dir: data}}\n'
    )
    assert approval_policy_of(load_config(config)) is None


async def test_what_the_rules_allow_is_approved_once_and_says_so(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Too cheap, of another product or too short: it waits, and the log says why. The rule stands in log, message and list."""
    async with settling_node(agreement, tmp_path) as node:
        ports = _ports(node, tmp_path, ANYBODY)
        good = await agreement.create(price=PRICE)
        cheap = await agreement.create(price=PRICE - 1)
        foreign = await agreement.create(price=PRICE, product="0x" + "0d" * 32)
        await node.node.wait_for_head()
        assert await _approve(node, ports) == [good]
        assert await _approve(node, ports) == [], "it is on its way, or mined"
        assert await node.nonce() == 1
        assert [await _status(node, lease) for lease in (good, cheap, foreign)] == ["approved", "created", "created"]
        assert "the product's is" in ports.reasons[LeaseId(cheap)]
        assert "no product on offer" in ports.reasons[LeaseId(foreign)]
        async with node.database.read_session() as session:
            [message] = await session.outbox.fetch_due(Channel.MQTT, node.clock.now())
        check_message(message.message.payload)
        assert message.message.topic == f"leases/{good}/auto-approved"
        assert message.message.payload["data"] == {"lease_id": good, "event": "auto-approved", "rule": "auto-anyone"}
        await node.finish()
        rows = await list_leases(load_config(write_config(node, tmp_path)))
        assert {row["lease_id"]: row["approved_by_rule"] for row in rows} == {good: "auto-anyone"}


async def test_the_limits_of_a_day_hold_through_a_restart(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Two of one Spender, three of all; a new process counts what was signed; a day later there is room again."""
    async with settling_node(agreement, tmp_path) as node:
        mine = [await agreement.create(price=PRICE) for _ in range(3)]
        approved = await _approve(node, _ports(node, tmp_path, ANYBODY))
        assert len(approved) == 2
        [left] = set(mine) - set(approved)
        others = [await agreement.create(price=PRICE, spender=STRANGER) for _ in range(2)]
        ports = _ports(node, tmp_path, ANYBODY)
        approved = await _approve(node, ports)
        assert len(approved) == 1
        assert set(approved) < set(others)
        assert "of this Spender" in ports.reasons[LeaseId(left)]
        [late] = set(others) - set(approved)
        assert "approval.per_day" in ports.reasons[LeaseId(late)]
        node.clock.ahead += 86_400 + 1
        assert set(await _approve(node, ports)) == {left, late}


async def test_a_list_of_spenders_and_the_price_of_gas(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Nobody else is approved; at a fee that eats the price nobody is."""
    async with settling_node(agreement, tmp_path) as node:
        policy = replace(ANYBODY, spenders=frozenset({Address(STRANGER.address.lower())}))
        listed, other = await agreement.create(price=PRICE, spender=STRANGER), await agreement.create(price=PRICE)
        await node.node.wait_for_head()
        fee = await node.sender.fetch_fee()
        dear = replace(policy, min_price_per_gas=PRICE / (life_gas(3) * fee) * 1.5)
        assert await _approve(node, _ports(node, tmp_path, dear)) == []
        ports = _ports(node, tmp_path, policy)
        assert await _approve(node, ports) == [listed]
        assert "approval.spenders" in ports.reasons[LeaseId(other)]
        assert [row.purpose for row in await node.rows()] == [f"approveLease:{listed}:auto-listed"]


async def test_an_approval_that_the_contract_refuses_is_not_counted(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """The node's key is not the operator's: nothing is signed, the reason is logged, and it is tried again."""
    async with settling_node(agreement, tmp_path, name_operator=False) as node:
        lease = await agreement.create(price=PRICE)
        ports = _ports(node, tmp_path, ANYBODY)
        assert await _approve(node, ports) == []
        assert "NotEarnerOrOperator" in ports.reasons[LeaseId(lease)]
        assert await node.rows() == []
