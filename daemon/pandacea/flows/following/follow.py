"""Apply an update of the chain view: rows and outbox in ONE transaction; the lease cache follows the commit."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import repeat
from typing import NamedTuple, Protocol

from pandacea.domain.approval_proof import ProofStatus, digest_lease_terms, evaluate_proof
from pandacea.domain.chain_view import ChainEvent, ChainUpdate, ChainView
from pandacea.domain.ids import LeaseId, LeaseKey
from pandacea.domain.lease import LeaseCreated
from pandacea.domain.lease_record import LeaseRecord
from pandacea.flows.following.chain_store import ChainStore, ChainUnitOfWork, StoredProof


class LeaseChange(NamedTuple):
    """One lease as it is now; `record` None: a reorg left nothing of it."""

    lease_id: LeaseId
    record: LeaseRecord | None
    proof_status: ProofStatus


class LeaseCacheWriter(Protocol):
    """The lease cache as the follower changes it: only after the commit, and only under the database's one write lock."""

    chain_view: ChainView | None

    def apply_changes(self, view: ChainView, changes: Sequence[LeaseChange]) -> None:
        """Take over a view and the leases that changed with it, without awaiting in between."""
        ...


class ReportDoubts(Protocol):
    """Takes leases whose events contradict each other, and leases of unknown creation that have events: something was not shown."""

    def __call__(self, contradictory: Collection[LeaseId], unknown: Collection[LeaseId]) -> None:
        """Take them over, without awaiting."""
        ...


async def apply_update(
    update: ChainUpdate,
    view: ChainView,
    store: ChainStore,
    cache: LeaseCacheWriter,
    messages_at: float | None,
    report_doubts: ReportDoubts | None = None,
    reread_at: float = 0.0,
) -> ChainView:
    """Make one update durable and then visible; returns the view that it leads to.

    `messages_at`: Unix seconds at which its events are told; None: to nobody (a backfill, or nobody listens).
    `report_doubts`: called after the commit with what an incomplete reading gives away; None: nobody asks (a backfill).
    `reread_at`: Unix seconds from which a range settled near the head is read once more.

    Raises:
        Unavailable: the database failed. Whether the update became durable must be read back before the next.
    """
    after = update.apply_to(view)
    async with store.unit_of_work() as tx:
        touched: set[LeaseId] = set()
        settled: dict[LeaseId, LeaseRecord] = {}
        if update.undo_to is not None:
            touched.update(await tx.chain.list_leases_above(update.undo_to.number))
            await tx.chain.delete_above(update.undo_to.number)
        events, ids = await select_own(tx, update.events)
        base = after.base.number
        whole = update.settle_to is not None and not update.blocks  # a settled range: nothing of it is above the new base
        old = events if whole else [seen for seen in events if seen.block <= base]
        fresh: Sequence[ChainEvent] = () if whole else [seen for seen in events if seen.block > base]
        await tx.chain.append_blocks(update.blocks, fresh)
        touched.update(seen.event.lease_id for seen in fresh)
        if update.settle_to is not None:
            settled, folded = await _settle(tx, update, view, old, ids, store)
            if view.base.number < base <= view.tip.number:
                # Near the head: read by hashes and checked by bloom filters, but perhaps while an endpoint left something out.
                await tx.chain.insert_backfill_range(view.base.number + 1, base, digest_events(folded), reread_at)
            if view.tip.number < after.base.number:
                # Read by block numbers, without a header that links it: one answer is not enough for it.
                await tx.chain.insert_backfill_range(view.tip.number + 1, after.base.number, digest_events(old))
            touched.update(settled)
        changes = await load_changes(tx, list(touched), store, settled, above=bool(after.blocks))
        await tx.chain.save_view(after)
        if messages_at is not None:
            known_to = view.tip.number if update.undo_to is None else update.undo_to.number
            for seen in events:
                if seen.block > known_to:
                    await tx.put_lease_event(seen, messages_at)
        tx.after_commit(lambda: cache.apply_changes(after, changes))
        if report_doubts is not None and (update.events or changes):
            contradictory, unknown = find_contradictions(changes), {seen.event.lease_id for seen in update.events} - ids
            tx.after_commit(lambda: report_doubts(contradictory, unknown))
        await tx.commit()
    return after


def find_contradictions(changes: Iterable[LeaseChange]) -> list[LeaseId]:
    """Return the leases whose events cannot be all: created without terms (one transaction emits both), or used without an approval."""
    return [
        lease_id
        for lease_id, record, _ in changes
        if record is not None
        and (record.terms[0] is None or (record.fact_blocks[0] is None and (record.committed or record.fact_blocks[1] is not None)))
    ]


async def refresh_leases(ids: Sequence[LeaseId], view: ChainView, store: ChainStore, cache: LeaseCacheWriter) -> None:
    """Bring the cache in line with the rows of some leases, after a (re)load."""
    async with store.unit_of_work() as tx:
        cache.apply_changes(view, await load_changes(tx, ids, store, {}))


async def select_own(tx: ChainUnitOfWork, events: Sequence[ChainEvent]) -> tuple[Sequence[ChainEvent], set[LeaseId]]:
    """Return the events of this Earner's leases, and their ids. A lease whose creation was never seen is another Earner's."""
    created: set[LeaseId] = set()
    others: set[LeaseId] = set()
    for seen in events:
        event = seen.event
        (created if type(event) is LeaseCreated else others).add(event.lease_id)
    asked = others - created
    if not asked:
        return events, created
    known = await tx.find_known(sorted(asked))
    kept = created | known
    if len(known) == len(asked):
        return events, kept
    return [seen for seen in events if seen.event.lease_id in kept], kept


def digest_events(events: Sequence[ChainEvent]) -> str:
    """Return the sha-256 (hex) over the identities of events, in the order they happened: how many in each block, and where there."""
    _, blocks, indexes, _, _, parts = zip(*events, strict=True) if events else ((),) * 6
    counts = Counter(blocks)
    digest = hashlib.sha256("".join(counts).encode())
    for numbers in (counts.values(), indexes, parts):
        digest.update(array("q", numbers))
    return digest.hexdigest()


async def _settle(
    tx: ChainUnitOfWork, update: ChainUpdate, view: ChainView, old: Sequence[ChainEvent], ids: set[LeaseId], store: ChainStore
) -> tuple[dict[LeaseId, LeaseRecord], Sequence[ChainEvent]]:
    """Fold what is final into the rows; return the leases and the events. Stored events and the update's are merged by identity."""
    assert update.settle_to is not None
    has_blocks = bool(view.blocks or update.blocks)  # no event is stored in the middle of a gap
    stored = await tx.chain.list_events_up_to(update.settle_to.number) if has_blocks else []
    events: Sequence[ChainEvent] = old
    if stored:
        by_identity = {seen.identity: seen for seen in old}
        by_identity.update((seen.identity, seen) for seen in stored)
        events = sorted(by_identity.values(), key=lambda seen: seen.position)
        ids = {seen.event.lease_id for seen in events}
    before = await tx.leases.load_settled(list(ids))
    after = fold_events(before, events, store, update.settle_to.timestamp)
    await tx.leases.save_leases(after, before)
    if has_blocks:
        await tx.chain.delete_settled(update.settle_to)
    return after, events


def fold_events(
    before: Mapping[LeaseId, LeaseRecord], events: Iterable[ChainEvent], store: ChainStore, at: int
) -> dict[LeaseId, LeaseRecord]:
    """Fold events in order into their leases; `at`: timestamp of a block at or after them (Unix seconds)."""
    after = dict(before)
    own: set[LeaseId] = set()
    """Leases whose record is this fold's: the others are copied before the first event, so that `before` stays as it was."""
    for seen in events:
        event = seen.event
        lease_id = event.lease_id
        record = after.get(lease_id)
        if record is None:
            if type(event) is not LeaseCreated:
                continue  # of a lease whose creation was not seen
            key = LeaseKey(store.chain_id, store.contract, lease_id)
            after[lease_id] = LeaseRecord(key, event.spender, event.earner, event.price, seen.block, seen_at=at)
            own.add(lease_id)
            continue
        if lease_id not in own:
            record = after[lease_id] = record.copy()
            own.add(lease_id)
        record.apply(seen)
    return after


async def load_all_leases(store: ChainStore) -> list[LeaseRecord]:
    """Load every lease that was approved or has events near the head, as of the newest block that was read.

    Raises:
        Unavailable: the database does not answer.
    """
    ids = set(await store.list_touched())
    async for page in store.load_approved():
        ids |= {row.lease_id for row in page}
    settled, events = await store.load_rows_and_events(sorted(ids))
    return list(fold_events(settled, events, store, 0).values())


async def load_changes(
    tx: ChainUnitOfWork,
    ids: Sequence[LeaseId],
    store: ChainStore,
    settled: Mapping[LeaseId, LeaseRecord],
    *,
    above: bool = True,
) -> list[LeaseChange]:
    """Load the newest state of leases: their rows (`settled` where just written) and, with `above`, the events stored above the base."""
    if not ids:
        return []
    rows = {**await tx.leases.load_settled([lease_id for lease_id in ids if lease_id not in settled]), **settled}
    newest = fold_events(rows, await tx.chain.list_events(ids), store, 0) if above else rows
    proofs = await tx.leases.load_proofs(ids)
    if not proofs:  # most of what a long reading brings
        return list(map(LeaseChange, ids, map(newest.get, ids), repeat(ProofStatus.PENDING)))
    return [
        LeaseChange(lease_id, record, current_proof_status(record, proofs.get(lease_id)))
        for lease_id in ids
        for record in (newest.get(lease_id),)
    ]


def current_proof_status(record: LeaseRecord | None, proof: StoredProof | None) -> ProofStatus:
    """Return the status that a stored proof gives a lease as it is now."""
    if record is None or proof is None:
        return ProofStatus.PENDING
    return evaluate_proof(
        digest_lease_terms(record.lease), record.approved_tx, (proof.status, proof.terms_digest, proof.approved_tx)
    )
