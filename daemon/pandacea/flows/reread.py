"""The second reading of settled ranges: what a first answer left out is folded in; nothing known is ever taken away."""

from __future__ import annotations

from collections.abc import Sequence

from pandacea.domain.ids import LeaseId
from pandacea.domain.lease import Lease
from pandacea.domain.seen import FACTS, BlockRef, Held, SeenEvent
from pandacea.flows.follow import Memory, changes_of, digest_of, folded, ours
from pandacea.flows.records import ChainRecords


async def reread(events: Sequence[SeenEvent], records: ChainRecords) -> tuple[bool, list[LeaseId]]:
    """Compare a second reading of the oldest waiting range with the first. True: they agree, and it waits no more.

    Otherwise the leases it speaks of, whose rows must be folded anew from all their events.
    """
    async with records.write() as tx:
        waiting = await tx.oldest_range()
        if waiting is None:
            return True, []
        first, _, digest = waiting
        found, _ = await ours(tx, events)
        if digest_of(found) != digest:
            return False, sorted({seen.event.lease_id for seen in found})
        await tx.delete_range(first)
        await tx.commit()
        return True, []


async def mend(lease_id: LeaseId, events: Sequence[SeenEvent], base: BlockRef, records: ChainRecords, memory: Memory) -> bool:
    """Write a lease's row anew from all its events up to `base`; False when nothing was gained.

    A poorer reading never takes a fact away: the row is replaced only by one that knows all it knew.
    """
    async with records.write() as tx:
        view = memory.view
        if view is None or view.base != base:
            return False  # settled further meanwhile: the next reading tries again
        before = await tx.settled([lease_id])
        anew = folded({}, sorted(events, key=lambda seen: seen.place), records, base.timestamp)
        if lease_id not in anew or not _knows_all(anew[lease_id].lease, before.get(lease_id)) or anew == before:
            return False
        await tx.save(anew, before)
        changes = await changes_of(tx, [lease_id], records, {})
        tx.after_commit(lambda: memory.publish(view, changes))
        await tx.commit()
    return True


def _knows_all(anew: Lease, before: Held | None) -> bool:
    if before is None:
        return True
    old = before.lease
    pairs = [(getattr(old, fact), getattr(anew, fact)) for fact in FACTS]
    return old.committed <= anew.committed and all(was is None or (now is not None and now <= was) for was, now in pairs)


async def reread_again(first: int, last: int, events: Sequence[SeenEvent], records: ChainRecords) -> None:
    """Hold a range against its newest reading from now on: it waits until two in a row agree."""
    async with records.write() as tx:
        await tx.delete_range(first)
        await tx.insert_range(first, last, digest_of((await ours(tx, events))[0]))
        await tx.commit()
