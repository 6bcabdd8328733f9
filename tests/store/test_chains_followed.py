"""Which chain a contract was followed on: asked when neither the configuration nor any endpoint says."""

from __future__ import annotations

from pathlib import Path

from pandacea.domain.ids import Address, BlockNumber, Timestamp
from pandacea.domain.seen import NO_HASH, BlockRef
from pandacea.store.migrate import upgrade
from pandacea.store.records import ChainRecords, chains_followed
from pandacea.store.session import Database

GENESIS = BlockRef(BlockNumber(-1), NO_HASH, NO_HASH, Timestamp(0))
HERE, ELSEWHERE, EARNER = Address("0x" + "cc" * 20), Address("0x" + "dd" * 20), Address("0x" + "ee" * 20)


async def test_a_contract_is_found_by_its_address_on_every_chain_it_was_followed_on(tmp_path: Path) -> None:
    """One address may be a contract on several chains, each followed by itself."""
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'node.db'}")
    try:
        await upgrade(database)
        assert await chains_followed(database, HERE) == []
        for chain_id, contract in ((31337, HERE), (5, HERE), (7, ELSEWHERE)):
            await ChainRecords(database, chain_id, contract).begin(EARNER, "v1", 0, GENESIS)
        assert await chains_followed(database, HERE) == [5, 31337]
        assert await chains_followed(database, ELSEWHERE) == [7]
    finally:
        await database.close()
