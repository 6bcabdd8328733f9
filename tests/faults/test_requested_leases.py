"""A lease from its request to its approval, by the node: what waits is seen, and is approved by the beginning of its id."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pandacea import keys
from pandacea.app.commands.earner_key import cancel_with_key, unlock_earner_key
from pandacea.app.control.leases import LeaseControl
from pandacea.app.settlement import SettlementWatch
from pandacea.app.startup import Adapters
from pandacea.clock import SystemClock
from pandacea.config import load_config
from pandacea.errors import BadConfig, Refused
from pandacea.flows.following.chain_store import ChainStore
from pandacea.flows.settlement.commit_results import Posting
from pandacea.flows.settlement.requested_leases import list_requested
from pandacea.flows.unit_of_work import Channel
from pandacea.store.products import SqlProductStore
from tests.chain.anvil import EARNER, OPERATOR, SPENDER, AnvilAgreement
from tests.faults.settling import SettlingNode, settling_node, write_config
from tests.messages import check_message


def _control(earner: SettlingNode, *, running: bool = True) -> LeaseControl:
    async def open_store() -> ChainStore:
        assert earner.node.follower.chain_store is not None
        return earner.node.follower.chain_store

    products = SqlProductStore(earner.node.database)
    cache = earner.node.lease_cache
    sender = earner.sender if running else None
    own_key = earner.sender.address == EARNER.address.lower()
    return LeaseControl(open_store, products, SystemClock(), cache, sender=sender, own_key=own_key)


async def _waiting(earner: SettlingNode, *, after: float = 0.0) -> list[str]:
    await earner.let_mine()
    await earner.node.wait_for_head()
    store = earner.node.follower.chain_store
    assert store is not None
    return [one.lease_id for one in await list_requested(store, earner.node.view, time.time() + after)]


async def test_what_waits_is_seen_and_approved(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """With its terms, before and after it is settled; ten characters of its id approve it; a second approval is nothing to do."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await agreement.create(price=2_000)
        assert await _waiting(earner) == [lease]
        await earner.chain.mine_blocks(12)
        [one] = await list_requested(await _store(earner), earner.node.view, time.time())
        assert (one.lease_id, one.spender, one.price_wei) == (lease, SPENDER.address.lower(), 2_000)
        assert time.time() + 6 * 86_400 < one.decide_until <= time.time() + 8 * 86_400
        answer = await _control(earner).approve_lease({"id": lease[:10]})
        assert answer == {"lease_id": lease, "sent": "approveLease"}
        assert await _waiting(earner) == []
        await earner.let_mine()
        before = await earner.nonce()
        await _control(earner).approve_lease({"id": lease})
        assert await earner.nonce() == before, "it is on its way already"
        with pytest.raises(Refused, match="waits here"):
            await _control(earner).approve_lease({"id": "0x" + "ab" * 32})


async def test_a_lease_that_waits_is_told_once(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """Whoever listens hears what there is to decide and until when; another look, and another start, tell nothing new."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await agreement.create(price=2_000)
        assert await _waiting(earner) == [lease]
        parts = SimpleNamespace(
            follower=earner.node.follower,
            database=earner.database,
            products=SqlProductStore(earner.node.database),
            clock=SystemClock(),
        )
        for _ in range(2):
            watch = SettlementWatch(cast("Adapters", parts), earner.sender, EARNER.address, Posting.PRICED)
            await watch.look_for_requests()
            await watch.look_for_requests()
        async with earner.database.read_session() as session:
            told = [entry.message for entry in await session.outbox.fetch_due(Channel.MQTT, time.time() + 1)]
        [requested] = [one for one in told if one.topic == f"leases/{lease}/requested"]
        check_message(requested.payload)
        assert requested.payload["data"]["price_wei"] == "2000"


async def _store(earner: SettlingNode) -> ChainStore:
    await earner.node.wait_for_head()
    assert earner.node.follower.chain_store is not None
    return earner.node.follower.chain_store


async def test_a_request_ends_with_its_week(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """The contract takes no approval after seven days, nor after the expiry."""
    async with settling_node(agreement, tmp_path) as earner:
        await agreement.create(days=30)
        short = await agreement.create(days=1)
        assert len(await _waiting(earner)) == 2
        assert short not in await _waiting(earner, after=86_400 + 60)
        assert await _waiting(earner, after=8 * 86_400) == []


async def test_only_the_earners_own_key_gives_the_price_back(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """With the operator's key the command says what to do, and sends nothing; the Earner's own key refuses a request."""
    async with settling_node(agreement, tmp_path) as earner:
        lease = await agreement.create()
        await earner.node.wait_for_head()
        before = await earner.nonce()
        with pytest.raises(Refused, match="pandacea leases cancel LEASE_ID --keystore FILE"):
            await _control(earner).cancel_lease({"id": lease})
        assert await earner.nonce() == before
        with pytest.raises(Refused, match="No node runs"):
            await _control(earner, running=False).cancel_lease({"id": lease})
    async with settling_node(agreement, tmp_path, account=EARNER, name_operator=False) as earner:
        await _control(earner).cancel_lease({"id": lease[:12]})
        await earner.let_mine()
        await earner.node.wait_for_head()
        assert (await earner.node.read_rows())[lease].lease.status.value == "cancelled"


async def test_the_earners_key_cancels_beside_a_node_with_the_operators(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """`--keystore`: a lease that waits and one that is approved, by the beginning of the id; another key's file is not taken."""
    async with settling_node(agreement, tmp_path) as earner:
        config = load_config(write_config(earner, tmp_path))
        approved, waiting = await earner.lease(), await agreement.create()
        await earner.node.wait_for_head()
        for lease in (approved, waiting):
            assert await cancel_with_key(config, EARNER, lease[:12]) == lease
            await earner.node.wait_for_head()
            assert (await earner.node.read_rows())[lease].lease.status.value == "cancelled"
        with pytest.raises(Refused, match="WrongStatus"):
            await cancel_with_key(config, EARNER, approved)
        keys.import_key(tmp_path / "operator.json", bytes(OPERATOR.key), "a passphrase of the test")
        with pytest.raises(BadConfig, match="not the key of the Earner"):
            unlock_earner_key(config, tmp_path / "operator.json", None)


async def test_an_operator_that_is_not_named_is_told_what_to_do(agreement: AnvilAgreement, tmp_path: Path) -> None:
    """The contract takes approvals from the Earner and its operator; the command says how a key becomes the operator."""
    async with settling_node(agreement, tmp_path, name_operator=False) as earner:
        lease = await agreement.create()
        await earner.node.wait_for_head()
        with pytest.raises(Refused, match="setOperator"):
            await _control(earner).approve_lease({"id": lease})
