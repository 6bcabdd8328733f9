"""Signed transactions in the database: amounts beyond any SQL integer, found by purpose, by what is open, by time."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy.exc import IntegrityError

from pandacea.domain.ids import Address, Hash32
from pandacea.flows.following.chain_store import SentTransaction
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.sent_transactions import SqlSentTransactionStore

ME = Address("0x" + "ab" * 20)
FIRST = SentTransaction(
    2**53 + 1, ME, 2**40, 0, "commitResult:a:b", Hash32("0x" + "1" * 64), "0x02", 2**255, 10**20, 1, 1000.5, "signed"
)


async def test_an_attempt_is_kept_as_it_was_signed(database: DatabaseEngine) -> None:
    """Wei to the last digit; a nonce's attempts in order; another's are not ours."""
    sent = SqlSentTransactionStore(database)
    second = replace(FIRST, attempt=1, max_fee=10**21, at=2000.25)
    other = replace(FIRST, sender=Address("0x" + "cd" * 20))
    for one in (second, FIRST, other):
        await sent.insert_attempt(one)
    assert await sent.list_from_nonce(FIRST.chain_id, ME, FIRST.nonce) == [FIRST, second]
    assert await sent.list_from_nonce(FIRST.chain_id, ME, FIRST.nonce + 1) == []
    assert await sent.list_since(FIRST.chain_id, ME, 1500.0) == [second]
    await sent.update_state(FIRST, "lost")
    await sent.update_state(second, "mined", 2**40, 2**200)
    assert await sent.list_open(FIRST.chain_id, ME) == [replace(second, state="mined", mined_block=2**40, paid=2**200)]
    await sent.update_state(second, "signed")
    assert await sent.list_open(FIRST.chain_id, ME) == [replace(second, state="signed")], "a reorganisation took it back"


async def test_a_nonce_is_never_used_for_two_things(database: DatabaseEngine) -> None:
    """The key is chain, sender, nonce and attempt."""
    sent = SqlSentTransactionStore(database)
    await sent.insert_attempt(FIRST)
    with pytest.raises(IntegrityError):
        await sent.insert_attempt(replace(FIRST, purpose="another"))
    assert await sent.list_open(FIRST.chain_id, ME) == [FIRST]
