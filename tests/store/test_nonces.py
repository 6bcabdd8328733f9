"""Nonces in the database: each once, many in one statement, forgotten when they could not be used any more."""

from __future__ import annotations

import asyncio

from pandacea.store.books import SqlBooks
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
    async with books.write() as work:
        assert await work.nonces.prune(20) == 1
        await work.commit()
    assert await insert(books, ("a", "1", 10), ("a", "2", 20)) == [True, False]
