"""`pandacea disputes`: what a Spender objects to, who decides until when, and how it ended."""

from __future__ import annotations

from pathlib import Path

from pandacea.app.commands.disputes import list_disputes
from pandacea.cli.disputes import render_dispute
from pandacea.config import load_config
from pandacea_sdk.protocol.contract import lease_agreement
from tests.chain.anvil import OWNER, PRODUCT, SPENDER, AnvilAgreement, encode_call
from tests.faults.settling import SettlingNode, settling_node, word, write_config


async def _dispute(agreement: AnvilAgreement, lease: str, reason: str) -> None:
    data = "0x" + lease_agreement().encode_call("raiseDispute", lease, reason).hex()
    await agreement.chain.send_transaction(SPENDER, agreement.address, data, value=100)


async def _resolve(node: SettlingNode, lease: str, *, valid: bool) -> None:
    data = encode_call("resolveDispute(bytes32,bool)", lease, int(valid))
    await node.chain.send_transaction(OWNER, node.agreement.address, data)


async def test_open_disputes_come_first_with_reason_and_term(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Also where nothing of it is settled; a reason is a stranger's text, and control characters in it stay visible."""
    async with settling_node(agreement, tmp_path) as node:
        config = load_config(write_config(node, tmp_path))
        assert await list_disputes(config) == []
        won, lost, undisputed, cancelled, live = [await node.lease() for _ in range(5)]
        await agreement.commit(live, word("a"))
        for lease in (won, lost, cancelled):
            await _dispute(agreement, lease, "old")
        await _resolve(node, won, valid=False)
        await _resolve(node, lost, valid=True)
        await agreement.cancel(cancelled)
        await node.chain.mine_blocks(12)
        await _dispute(agreement, live, "no rows\x1b[2J came")
        await node.node.wait_for_head()
        rows = await list_disputes(config)
        assert rows[0].lease_id == live
        assert {row.lease_id: (row.is_open, row.won_by_spender) for row in rows} == {
            live: (True, None),
            won: (False, False),
            lost: (False, True),
            cancelled: (False, None),
        }
        assert undisputed not in {row.lease_id for row in rows}
        first = rows[0]
        block = await node.chain.call_method("eth_getBlockByNumber", hex(first.disputed_block), False)
        assert first.raised_at == int(block["timestamp"], 16)
        assert (first.price_wei, first.committed, first.product) == (1_000, 1, PRODUCT)
        said = "\n".join(render_dispute(first))
        assert "open: the lease's arbiter decides until" in said
        assert "no rows" in said
        assert "\x1b" not in said
        await node.chain.kill()
        [blind, *_] = await list_disputes(config)
        assert (blind.lease_id, blind.raised_at, blind.reason) == (live, None, None), "the database alone says which"
