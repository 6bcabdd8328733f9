"""Check a backfill by a second reading: what the first answer left out is folded in; nothing known is ever taken away."""

from __future__ import annotations

from collections.abc import Sequence

from pandacea.domain.chain_view import BlockRef, ChainEvent
from pandacea.domain.ids import LeaseId
from pandacea.domain.lease import Lease
from pandacea.domain.lease_record import FACT_FIELDS, LeaseRecord
from pandacea.flows.chain_store import ChainStore
from pandacea.flows.follow import LeaseCacheWriter, digest_events, fold_events, load_changes, select_own


async def check_range(events: Sequence[ChainEvent], store: ChainStore) -> tuple[bool, list[LeaseId]]:
    """Compare a second reading of the oldest waiting range with the first. True: they agree, and it waits no more.

    Otherwise also the leases of its events, whose rows must be folded anew from all their events.
    """
    async with store.unit_of_work() as tx:
        waiting = await tx.chain.find_backfill_range()
        if waiting is None:
            return True, []
        first, _, digest = waiting
        found, _ = await select_own(tx, events)
        if digest_events(found) != digest:
            return False, sorted({seen.event.lease_id for seen in found})
        await tx.chain.delete_backfill_range(first)
        await tx.commit()
        return True, []


async def rebuild_lease(
    lease_id: LeaseId, events: Sequence[ChainEvent], base: BlockRef, store: ChainStore, cache: LeaseCacheWriter
) -> bool:
    """Fold a lease's row anew from all its events up to `base`; False when nothing was gained.

    An incomplete reading never takes a fact away: the row is replaced only by one that has all of its facts.
    """
    async with store.unit_of_work() as tx:
        view = cache.chain_view
        if view is None or view.base != base:
            return False  # settled further meanwhile: the next reading tries again
        before = await tx.leases.load_settled([lease_id])
        anew = fold_events({}, sorted(events, key=lambda seen: seen.position), store, base.timestamp)
        if lease_id not in anew or not _knows_all(anew[lease_id].lease, before.get(lease_id)) or anew == before:
            return False
        await tx.leases.save_leases(anew, before)
        changes = await load_changes(tx, [lease_id], store, {})
        tx.after_commit(lambda: cache.apply_changes(view, changes))
        await tx.commit()
    return True


def _knows_all(anew: Lease, before: LeaseRecord | None) -> bool:
    if before is None:
        return True
    old = before.lease
    pairs = [(getattr(old, fact), getattr(anew, fact)) for fact in FACT_FIELDS]
    return old.committed <= anew.committed and all(was is None or (now is not None and now <= was) for was, now in pairs)


async def replace_range_digest(first: int, last: int, events: Sequence[ChainEvent], store: ChainStore) -> None:
    """Compare a range with its newest reading from now on: it waits until two readings in a row agree."""
    async with store.unit_of_work() as tx:
        await tx.chain.delete_backfill_range(first)
        await tx.chain.insert_backfill_range(first, last, digest_events((await select_own(tx, events))[0]))
        await tx.commit()
