"""Why an approval counts: what the operator says stands, for the terms that were shown and for nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.chain_view import NO_HASH, BlockRef, ChainEvent, ChainUpdate, ChainView
from pandacea.domain.ids import Address, BlockNumber, Hash32, LeaseId, Timestamp, Wei
from pandacea.domain.lease import LeaseApproved, LeaseCancelled, LeaseCreated, LeaseEvent, LeaseTerms
from pandacea.errors import Refused
from pandacea.flows.following.approval_proof import acknowledge_lease, load_approval, save_proof
from pandacea.flows.following.chain_store import StoredProof
from pandacea.flows.following.follow import LeaseChange, apply_update
from pandacea.store.chain_store import SqlChainStore
from pandacea.store.database_engine import DatabaseEngine
from pandacea.store.migrate import upgrade

LEASE, OTHER = LeaseId("0x" + "1a" * 32), LeaseId("0x" + "2b" * 32)
CONTRACT, EARNER, SPENDER = Address("0x" + "cc" * 20), Address("0x" + "ee" * 20), Address("0x" + "aa" * 20)
PRODUCT = Hash32("0x" + "22" * 32)
CREATED = LeaseCreated(LEASE, SPENDER, EARNER, Wei(1000))
TERMS = LeaseTerms(LEASE, PRODUCT, Timestamp(2_000_000_000), 3)
APPROVED, CANCELLED = LeaseApproved(LEASE), LeaseCancelled(LEASE)
GENESIS = BlockRef(BlockNumber(-1), NO_HASH, NO_HASH, Timestamp(0))


class RecordingCache:
    """Memory that keeps what it was told last."""

    def __init__(self) -> None:
        self.chain_view: ChainView | None = ChainView(GENESIS)
        self.statuses: dict[LeaseId, ProofStatus] = {}

    def apply_changes(self, view: ChainView, changes: Sequence[LeaseChange]) -> None:
        self.chain_view = view
        self.statuses.update({change.lease_id: change.proof_status for change in changes})


class Followed:
    """Rows of one contract, and the memory over them."""

    def __init__(self, records: SqlChainStore) -> None:
        self.store = records
        self.cache = RecordingCache()

    async def sees(self, *events: LeaseEvent, undo_to: int | None = None) -> None:
        """One more block, with these events; `undo_to`: after going back to that block (a reorg)."""
        view = self.cache.chain_view
        assert view is not None
        back = None if undo_to is None else view.block_at(undo_to)
        parent = back or view.tip
        block = BlockRef(BlockNumber(parent.number + 1), _hash(parent.hash + "next"), parent.hash, Timestamp(1))
        seen = [ChainEvent(block.number, block.hash, place, _hash(f"{block.hash}{place}"), one) for place, one in enumerate(events)]
        await apply_update(ChainUpdate(undo_to=back, blocks=(block,), events=tuple(seen)), view, self.store, self.cache, None)

    async def acknowledge(self, terms: str | None = None, lease_id: LeaseId = LEASE) -> None:
        """The operator's word, on the terms as they stand unless told."""
        shown = terms if terms is not None else (await load_approval(lease_id, self.store)).terms_digest
        await acknowledge_lease(lease_id, shown, "operator Ada", 5, self.store, self.cache)


def _hash(text: str) -> Hash32:
    return Hash32("0x" + hashlib.sha256(text.encode()).hexdigest())


@pytest.fixture
async def followed(tmp_path: Path) -> AsyncIterator[Followed]:
    """A contract whose first block is still to come."""
    database = await DatabaseEngine.open(f"sqlite+aiosqlite:///{tmp_path / 'node.db'}")
    await upgrade(database)
    records = SqlChainStore(database, 1, CONTRACT)
    await records.open_deployment(EARNER, "v1", 0, GENESIS)
    yield Followed(records)
    await database.close()


async def test_the_operators_word_counts_at_once_and_is_kept(followed: Followed) -> None:
    """In memory when `acknowledge` returns, in the rows with who said it."""
    await followed.sees(CREATED, TERMS, APPROVED)
    await followed.acknowledge()
    assert followed.cache.statuses[LEASE] is ProofStatus.ACKNOWLEDGED
    found = await load_approval(LEASE, followed.store)
    assert (found.proof_status, found.attested_by) == (ProofStatus.ACKNOWLEDGED, "operator Ada")


@pytest.mark.parametrize(
    ("events", "lease_id", "said"),
    [
        ((), OTHER, "No lease"),
        ((CREATED, TERMS), LEASE, "not approved"),
        ((CREATED, TERMS, APPROVED, CANCELLED), LEASE, "cancelled"),
    ],
)
async def test_what_cannot_be_used_cannot_be_acknowledged(
    followed: Followed, events: tuple[LeaseEvent, ...], lease_id: LeaseId, said: str
) -> None:
    """An unknown lease, one that nobody approved, one that has ended."""
    await followed.sees(*events)
    with pytest.raises(Refused, match=said):
        await followed.acknowledge(lease_id=lease_id)


async def test_other_terms_than_those_shown_are_refused(followed: Followed) -> None:
    """Between the showing and the yes the chain put another lease under the id."""
    await followed.sees()
    await followed.sees(CREATED, TERMS, APPROVED)
    shown = (await load_approval(LEASE, followed.store)).terms_digest
    dearer = LeaseTerms(LEASE, PRODUCT, TERMS.expires_at, 300)
    await followed.sees(CREATED, dearer, APPROVED, undo_to=0)
    with pytest.raises(Refused, match="Look at them again"):
        await followed.acknowledge(shown)
    assert followed.cache.statuses[LEASE] is ProofStatus.PENDING


async def test_a_proof_that_failed_takes_the_operators_word_not_back(followed: Followed) -> None:
    """A proof that was under way while the operator acknowledged ends after it."""
    await followed.sees(CREATED, TERMS, APPROVED)
    before = await load_approval(LEASE, followed.store)
    await followed.acknowledge()
    failed = StoredProof(ProofStatus.UNPROVEN, before.terms_digest, before.approved_tx, "a relay")
    await save_proof(LEASE, failed, 6, followed.store, followed.cache)
    assert followed.cache.statuses[LEASE] is ProofStatus.ACKNOWLEDGED
    assert (await load_approval(LEASE, followed.store)).attested_by == "operator Ada"


async def test_the_word_stands_when_a_reorg_moves_the_approval_and_falls_with_the_terms(followed: Followed) -> None:
    """It is bound to the terms, not to the transaction: the same approval in another block counts, other terms do not."""
    await followed.sees()
    await followed.sees(CREATED, TERMS, APPROVED)
    await followed.acknowledge()
    await followed.sees(CREATED, TERMS, undo_to=0)
    with pytest.raises(Refused, match="not approved"):
        await load_approval(LEASE, followed.store)
    await followed.sees(APPROVED)
    assert followed.cache.statuses[LEASE] is ProofStatus.ACKNOWLEDGED
    await followed.sees(CREATED, LeaseTerms(LEASE, PRODUCT, TERMS.expires_at, 300), APPROVED, undo_to=0)
    assert followed.cache.statuses[LEASE] is ProofStatus.PENDING


async def test_what_is_proved_or_acknowledged_already_is_not_asked_for_again(followed: Followed) -> None:
    """The second time is refused, and says who vouches."""
    await followed.sees(CREATED, TERMS, APPROVED)
    await followed.acknowledge()
    with pytest.raises(Refused, match=r"counts already.*operator Ada"):
        await followed.acknowledge()


async def test_why_an_approval_is_unproven_is_shown(followed: Followed) -> None:
    """What the prover found is what the operator reads."""
    await followed.sees(CREATED, TERMS, APPROVED)
    seen = await load_approval(LEASE, followed.store)
    assert (seen.proof_status, seen.attested_by) == (ProofStatus.PENDING, "")
    failed = StoredProof(ProofStatus.UNPROVEN, seen.terms_digest, seen.approved_tx, "it was sent to a relay")
    await save_proof(LEASE, failed, 6, followed.store, followed.cache)
    seen = await load_approval(LEASE, followed.store)
    assert (seen.proof_status, seen.attested_by) == (ProofStatus.UNPROVEN, "it was sent to a relay")
