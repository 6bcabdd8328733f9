"""Nonces in the database: each once, many in one statement, forgotten when they could not be used any more."""

from __future__ import annotations

import asyncio

from pandacea.store.books import SqlBooks
from pandacea.store.migrate import upgrade
from pandacea.store.session import Database


async def insert(books: SqlBooks, *rows: tuple[str, str, int]) -> list[bool]:
    return await books.spend_nonces(rows)


async def test_each_is_new_once(database: Database) -> None:
    """Across transactions and within one: of equal rows the first wins; key and nonce count together."""
    books = SqlBooks(database)
    assert await insert(books) == []
    assert await insert(books, ("a", "1", 10), ("a", "2", 10), ("a", "1", 10), ("b", "1", 10)) == [True, True, False, True]
    assert await insert(books, ("a", "1", 99), ("b", "2", 10)) == [False, True]


async def test_of_many_writers_one_wins(database: Database) -> None:
    """Twenty transactions with the same nonce: one finds it new."""
    books = SqlBooks(database)
    found = await asyncio.gather(*(insert(books, ("a", "1", 10)) for _ in range(20)))
    assert sum(fresh for (fresh,) in found) == 1


async def test_a_full_batch_fits_one_statement(database: Database) -> None:
    """The largest batch the writer makes stays below the databases' limits on parameters."""
    rows = [("erc8128:131277322940537:0x" + "ab" * 20, f"{n:064d}", 2**31) for n in range(512)]
    assert await insert(SqlBooks(database), *rows) == [True] * 512


async def test_what_has_expired_is_forgotten(database: Database) -> None:
    """Pruning removes rows that expired before a time, and no others."""
    books = SqlBooks(database)
    await insert(books, ("a", "1", 10), ("a", "2", 20))
    await books.prune_nonces(20)
    assert await insert(books, ("a", "1", 10), ("a", "2", 20)) == [True, False]


async def test_a_nonce_waits_for_no_transaction(database: Database) -> None:
    """Whatever a job is writing, a signed request is not kept waiting for it."""
    books = SqlBooks(database)
    async with books.write():
        assert await insert(books, ("a", "1", 10)) == [True]


async def test_a_nonce_is_kept_over_a_restart(database: Database, database_url: str) -> None:
    """A replay is refused by the node that starts next on the same state."""
    await insert(SqlBooks(database), ("a", "1", 10))
    await database.close()
    again = await Database.open(database_url)
    await upgrade(again)
    assert await insert(SqlBooks(again), ("a", "1", 10), ("a", "2", 10)) == [False, True]
    await again.close()
