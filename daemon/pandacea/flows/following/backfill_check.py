"""Check a backfill by a second reading: what the first answer left out is folded in; nothing known is ever taken away."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Final

from pandacea.domain.chain_view import BlockRef, ChainEvent, ChainView
from pandacea.domain.ids import LeaseId
from pandacea.domain.lease import Lease, LeaseCreated, LeaseTerms
from pandacea.domain.lease_record import FACT_FIELDS, LeaseRecord
from pandacea.flows.following.chain_store import ChainStore, ChainUnitOfWork
from pandacea.flows.following.follow import (
    LeaseCacheWriter,
    digest_events,
    find_contradictions,
    fold_events,
    load_changes,
    select_own,
)

LATER_SECONDS: Final = 300.0
"""From the settling of a range near the head, or from the agreement on one of a backfill, to one more reading."""


async def check_range(
    waiting: tuple[int, int, str, float], events: Sequence[ChainEvent], store: ChainStore, later_at: float
) -> tuple[bool, list[LeaseId]]:
    """Compare another reading of a waiting range with the last. True: they agree.

    A range that was read twice at once waits until `later_at` (Unix seconds) for one more reading; one that was read later is done.
    False: also the leases of its events, whose rows must be folded anew from all their events.
    """
    first, last, digest, due_at = waiting
    async with store.unit_of_work() as tx:
        found, _ = await select_own(tx, events)
        if digest_events(found) != digest:
            return False, sorted({seen.event.lease_id for seen in found})
        if due_at:
            await tx.chain.delete_backfill_range(first)
        else:
            await tx.chain.insert_backfill_range(first, last, digest, later_at)
        await tx.commit()
        return True, []


class RereadOutcome(StrEnum):
    """How a lease stands after all of its events were read again."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    OVERTAKEN = "overtaken"
    """The follower settled further meanwhile: read again."""


async def rebuild_lease(
    lease_id: LeaseId, events: Sequence[ChainEvent], base: BlockRef, store: ChainStore, cache: LeaseCacheWriter
) -> RereadOutcome:
    """Fold a lease's row anew from all its events up to `base`, and store those of the held blocks above that were missing.

    An incomplete reading never takes a fact away: the row is replaced only by one that has all of its facts. Events of blocks that
    are not held (another fork's) are left out.
    """
    async with store.unit_of_work() as tx:
        view = cache.chain_view
        if view is None or view.base != base:
            return RereadOutcome.OVERTAKEN
        before = await tx.leases.load_settled([lease_id])
        settled = sorted((seen for seen in events if seen.block <= base.number), key=lambda seen: seen.position)
        anew = fold_events({}, settled, store, base.timestamp)
        if lease_id in anew and lease_id in before:
            anew[lease_id].seen_at = before[lease_id].seen_at  # a bound for pruning, not a fact
        gained = lease_id in anew and _knows_all(anew[lease_id].lease, before.get(lease_id)) and anew != before
        if gained:
            await tx.leases.save_leases(anew, before)
        fresh = await _store_missing(tx, [seen for seen in events if seen.block > base.number], view, is_ours=gained)
        if not gained and not fresh:
            return RereadOutcome.UNCHANGED
        changes = await load_changes(tx, [lease_id], store, {})
        tx.after_commit(lambda: cache.apply_changes(view, changes))
        await tx.commit()
    return RereadOutcome.CHANGED


async def add_missing_events(events: Sequence[ChainEvent], store: ChainStore, cache: LeaseCacheWriter) -> list[LeaseId]:
    """Store events of held blocks that were left out before; return the leases that changed."""
    async with store.unit_of_work() as tx:
        view = cache.chain_view
        if view is None:
            return []
        changed = sorted({seen.event.lease_id for seen in await _store_missing(tx, events, view, is_ours=False)})
        if changed:
            changes = await load_changes(tx, changed, store, {})
            tx.after_commit(lambda: cache.apply_changes(view, changes))
            await tx.commit()
    return changed


async def _store_missing(
    tx: ChainUnitOfWork, events: Sequence[ChainEvent], view: ChainView, *, is_ours: bool
) -> Sequence[ChainEvent]:
    """Store those events of held blocks that are not stored yet; return them. `is_ours`: they are known to be of own leases."""
    held = [seen for seen in events if (block := view.block_at(seen.block)) is not None and block.hash == seen.block_hash]
    own = held if is_ours else (await select_own(tx, held))[0]
    stored = {seen.identity for seen in await tx.chain.list_events(sorted({seen.event.lease_id for seen in own}))}
    fresh = [seen for seen in own if seen.block > view.base.number and seen.identity not in stored]
    await tx.chain.append_blocks((), fresh)
    return fresh


async def load_record(lease_id: LeaseId, store: ChainStore) -> LeaseRecord | None:
    """Return a lease as the rows have it, with the events above the base folded in; None: its creation was never seen."""
    async with store.unit_of_work() as tx:
        settled = await tx.leases.load_settled([lease_id])
        return fold_events(settled, await tx.chain.list_events([lease_id]), store, 0).get(lease_id)


async def list_contradictory_leases(store: ChainStore, limit: int) -> list[LeaseId]:
    """List leases, `limit` at most, whose stored events contradict each other: what a backfill or an earlier process left."""
    touched = await store.list_touched()
    async with store.unit_of_work() as tx:
        above = find_contradictions(await load_changes(tx, touched, store, {}))
        settled = await tx.leases.list_contradictory(limit)
    whole = {lease_id for lease_id in settled if lease_id not in set(touched)}
    return [*above, *sorted(whole)][:limit]


async def find_leases_lacking(
    events: Sequence[ChainEvent], created: Collection[LeaseId], store: ChainStore
) -> tuple[list[LeaseId], set[LeaseId]]:
    """Compare settled events with the rows. Returns the leases whose rows lack one, and those whose creation has no row.

    The latter may have been pruned, so they count as lacking only when something else happened to them; `created`: earlier ones.
    """
    others = {seen.event.lease_id for seen in events if type(seen.event) not in (LeaseCreated, LeaseTerms)}
    ids = sorted({seen.event.lease_id for seen in events})
    async with store.unit_of_work() as tx:
        known = await tx.leases.load_settled(ids)
    unknown = {seen.event.lease_id for seen in events if type(seen.event) is LeaseCreated} - known.keys()
    lacking = {lease_id for lease_id in others if lease_id in unknown or (lease_id in created and lease_id not in known)}
    for seen in events:
        record = known.get(seen.event.lease_id)
        if record is not None and not record.has_fact_of(seen.event):
            lacking.add(seen.event.lease_id)
    return sorted(lacking), unknown


def _knows_all(anew: Lease, before: LeaseRecord | None) -> bool:
    if before is None:
        return True
    old = before.lease
    pairs = [(getattr(old, fact), getattr(anew, fact)) for fact in FACT_FIELDS]
    if old.data_product_id is not None and old.data_product_id != anew.data_product_id:
        return False
    return old.committed <= anew.committed and all(was is None or (now is not None and now <= was) for was, now in pairs)


async def replace_range_digest(first: int, last: int, events: Sequence[ChainEvent], store: ChainStore) -> None:
    """Compare a range with its newest reading from now on: it waits until two readings in a row agree."""
    async with store.unit_of_work() as tx:
        await tx.chain.insert_backfill_range(first, last, digest_events((await select_own(tx, events))[0]))
        await tx.commit()
