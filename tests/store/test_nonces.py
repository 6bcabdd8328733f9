"""Nonces in the database: each once, many in one statement, forgotten when they could not be used any more."""

from __future__ import annotations

import asyncio

from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade
from pandacea.store.unit_of_work import SqlDatabase


async def insert(books: SqlDatabase, *rows: tuple[str, str, int]) -> list[bool]:
    return await books.spend_nonces(rows)


async def test_each_is_new_once(database: DatabaseEngine) -> None:
    """Across transactions and within one: of equal rows the first wins; key and nonce count together."""
    books = SqlDatabase(database)
    assert await insert(books) == []
    assert await insert(books, ("a", "1", 10), ("a", "2", 10), ("a", "1", 10), ("b", "1", 10)) == [True, True, False, True]
    assert await insert(books, ("a", "1", 99), ("b", "2", 10)) == [False, True]


async def test_of_many_writers_one_wins(database: DatabaseEngine) -> None:
    """Twenty transactions with the same nonce: one finds it new."""
    books = SqlDatabase(database)
    found = await asyncio.gather(*(insert(books, ("a", "1", 10)) for _ in range(20)))
    assert sum(fresh for (fresh,) in found) == 1


async def test_a_full_batch_fits_one_statement(database: DatabaseEngine) -> None:
    """The largest batch the writer makes stays below the databases' limits on parameters."""
    rows = [("erc8128:131277322940537:0x" + "ab" * 20, f"{n:064d}", 2**31) for n in range(512)]
    assert await insert(SqlDatabase(database), *rows) == [True] * 512


async def test_what_has_expired_is_forgotten(database: DatabaseEngine) -> None:
    """Pruning removes rows that expired before a time, and no others."""
    books = SqlDatabase(database)
    await insert(books, ("a", "1", 10), ("a", "2", 20))
    await books.prune_nonces(20)
    assert await insert(books, ("a", "1", 10), ("a", "2", 20)) == [True, False]


async def test_a_nonce_waits_for_no_transaction(database: DatabaseEngine) -> None:
    """Whatever a job is writing, a signed request is not kept waiting for it."""
    books = SqlDatabase(database)
    async with books.unit_of_work():
        assert await insert(books, ("a", "1", 10)) == [True]


async def test_a_nonce_is_kept_over_a_restart(database: DatabaseEngine, database_url: str) -> None:
    """A replay is refused by the node that starts next on the same state."""
    await insert(SqlDatabase(database), ("a", "1", 10))
    await database.close()
    again = await DatabaseEngine.open(database_url)
    await upgrade(again)
    assert await insert(SqlDatabase(again), ("a", "1", 10), ("a", "2", 10)) == [False, True]
    await again.close()
