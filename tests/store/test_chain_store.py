"""Which chain a contract was followed on: asked when neither the configuration nor any endpoint says."""

from __future__ import annotations

from pathlib import Path

from pandacea.domain.chain_view import NO_HASH, BlockRef
from pandacea.domain.ids import Address, BlockNumber, Timestamp
from pandacea.store.chain_store import SqlChainStore, list_followed_chains
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade

GENESIS = BlockRef(BlockNumber(-1), NO_HASH, NO_HASH, Timestamp(0))
HERE, ELSEWHERE, EARNER = Address("0x" + "cc" * 20), Address("0x" + "dd" * 20), Address("0x" + "ee" * 20)


async def test_a_contract_is_found_by_its_address_on_every_chain_it_was_followed_on(tmp_path: Path) -> None:
    """One address may be a contract on several chains, each followed by itself."""
    database = await DatabaseEngine.open(f"sqlite+aiosqlite:///{tmp_path / 'node.db'}")
    try:
        await upgrade(database)
        assert await list_followed_chains(database, HERE) == []
        for chain_id, contract in ((31337, HERE), (5, HERE), (7, ELSEWHERE)):
            await SqlChainStore(database, chain_id, contract).open_deployment(EARNER, "v1", 0, GENESIS)
        assert await list_followed_chains(database, HERE) == [5, 31337]
        assert await list_followed_chains(database, ELSEWHERE) == [7]
    finally:
        await database.close()
