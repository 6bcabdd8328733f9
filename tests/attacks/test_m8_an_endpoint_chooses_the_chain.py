"""An endpoint shows a test chain, where the same address holds leases that the Earner approved for play: they open the real data."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pandacea.app import factories
from pandacea.config import Config, load_config
from pandacea.domain.chain_view import NO_HASH, BlockRef
from pandacea.domain.ids import Address, BlockNumber, Timestamp
from pandacea.errors import BadConfig, Broken
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from pandacea_sdk.protocol.contract import lease_agreement
from tests.chain.anvil import Anvil
from tests.chain.node import FollowingNode
from tests.faults.proxy import FaultProxy

CONTRACT = "0x" + "1" * 40
PLACE: dict[str, Any] = {"rpc_url": "http://127.0.0.1:1", "contract_address": CONTRACT, "chain_id": 1}


def configured(**more: Any) -> Config:
    blockchain = {key: value for key, value in {**PLACE, **more}.items() if value is not None}
    return Config.model_validate({"blockchain": blockchain, "earner": {"address": "0x" + "2" * 40, "keystore": "k"}})


def test_a_configuration_without_the_chain_is_refused(tmp_path: Path) -> None:
    """Nothing is left for an endpoint to choose."""
    tree = {"blockchain": {**PLACE, "chain_id": None}, "earner": {"address": "0x" + "2" * 40, "keystore": "k"}}
    (tmp_path / "config.yaml").write_text(json.dumps(tree))
    with pytest.raises(BadConfig, match="chain_id must be given"):
        load_config(tmp_path / "config.yaml", {})


def test_the_code_is_this_versions_unless_another_is_stated() -> None:
    """A contract of the first version is followed by its hash, which the operator states."""
    assert factories.resolve_contract(configured()).code_hash == lease_agreement().runtime_code_hash
    stated = "0x" + "AB" * 32
    assert factories.resolve_contract(configured(code_hash=stated)).code_hash == stated.lower()


async def test_another_chain_at_the_same_address_is_not_followed(anvil: Anvil, tmp_path: Path) -> None:
    """Same deployer, same address, same code, other chain: named with both ids, and the node ends."""
    agreement = await anvil.deploy_agreement()
    async with Anvil("--chain-id", "4242") as test_chain:
        test_chain.chain_id = 4242
        assert (await test_chain.deploy_agreement()).address == agreement.address
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[test_chain.url]) as node:
            assert node._task is not None
            with pytest.raises(Broken, match=r"chain 4242.*chain 31337"):
                await asyncio.wait_for(asyncio.shield(node._task), 10)
            assert not node.lease_cache.chain_status().is_ready


async def test_other_code_at_the_address_is_not_followed(anvil: Anvil, tmp_path: Path) -> None:
    """At start the node ends and names both hashes."""
    agreement = await anvil.deploy_agreement()
    async with FaultProxy(anvil.url) as proxy:
        proxy.after.append(other_code)
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[proxy.url]) as node:
            assert node._task is not None
            with pytest.raises(Broken, match=f"expected {await agreement.code_hash()}"):
                await asyncio.wait_for(asyncio.shield(node._task), 10)


async def test_an_endpoint_that_comes_back_with_other_code_is_left_alone(anvil: Anvil, tmp_path: Path) -> None:
    """It was away, and is looked at anew; the other one is followed."""
    agreement = await anvil.deploy_agreement()
    async with FaultProxy(anvil.url) as moving:
        async with FollowingNode(agreement, tmp_path / "node.db", urls=[moving.url, anvil.url]) as node:
            await node.wait_for_head()
            moving.refuse = True
            await anvil.mine_blocks(1)
            await node.wait_for_head()
            moving.after.append(other_code)
            moving.refuse = False
            key = (node.endpoints.members[0].name, "wrong-chain")
            await node.wait_until(lambda: key in node.follower.collect_metrics().rpc_errors, what="noticed")
            lease = await agreement.create()
            await agreement.approve(lease)
            await node.wait_for_proof(lease)
            assert node.endpoints.current is node.endpoints.members[1]


async def test_a_database_of_another_chain_is_not_taken_over(tmp_path: Path) -> None:
    """The chain that was followed here never changes in silence."""
    database = await DatabaseEngine.open(f"sqlite+aiosqlite:///{tmp_path / 'node.db'}")
    await upgrade(database)
    contract = factories.resolve_contract(configured())
    await factories.require_same_chain(contract, database)
    genesis = BlockRef(BlockNumber(-1), NO_HASH, NO_HASH, Timestamp(0))
    await SqlChainStore(database, 11_155_111, Address(CONTRACT)).open_deployment(Address("0x" + "2" * 40), "v1", 0, genesis)
    with pytest.raises(Broken, match=r"on chain 11155111.*names chain 1\."):
        await factories.require_same_chain(contract, database)
    await SqlChainStore(database, 1, Address(CONTRACT)).open_deployment(Address("0x" + "2" * 40), "v1", 0, genesis)
    await factories.require_same_chain(contract, database)
    await database.close()


def other_code(method: str, _params: list[Any], result: Any) -> Any:
    """A contract of the attacker's."""
    return result + "00" if method == "eth_getCode" and result != "0x" else result
