"""The follower's journey: from a step of the chain to rows, outbox and memory, in ONE transaction; memory follows the commit."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import NamedTuple, Protocol

from pandacea.domain.ids import LeaseId, LeaseKey
from pandacea.domain.lease import LeaseCreated
from pandacea.domain.seen import Held, SeenEvent, Step, View
from pandacea.domain.trust import Trust, terms_of, trust_of
from pandacea.flows.records import ChainRecords, ChainTransaction, KeptProof


class Change(NamedTuple):
    """How one lease stands now; `held` None: nothing of it is left."""

    lease_id: LeaseId
    held: Held | None
    trust: Trust


class Memory(Protocol):
    """What answers the three questions: changed only after the commit, and only under the database's one write lock."""

    view: View | None

    def publish(self, view: View, changes: Sequence[Change]) -> None:
        """Take over a view and the leases that changed with it, at once."""
        ...


@dataclass(frozen=True, slots=True)
class Telling:
    """Where life-cycle messages go: into the outbox of the same transaction, at `now` (Unix seconds)."""

    now: Callable[[], float]


async def take(step: Step, view: View, records: ChainRecords, memory: Memory, telling: Telling | None) -> View:
    """Make one step durable and then visible; returns the view it leads to.

    `telling` None: no messages (a backfill, or no broker).

    Raises:
        Unavailable: the database failed. Whether the step became durable must be read back before the next.
    """
    after = step.moves(view)
    async with records.write() as tx:
        touched: set[LeaseId] = set()
        settled: dict[LeaseId, Held] = {}
        if step.undo_to is not None:
            touched.update(await tx.leases_above(step.undo_to.number))
            await tx.undo(step.undo_to.number)
        events, ids = await ours(tx, step.events)
        base = after.base.number
        whole = step.settle_to is not None and not step.blocks  # a settled range: nothing of it lies above the new base
        old = events if whole else [seen for seen in events if seen.block <= base]
        fresh: Sequence[SeenEvent] = () if whole else [seen for seen in events if seen.block > base]
        await tx.append(step.blocks, fresh)
        touched.update(seen.event.lease_id for seen in fresh)
        if step.settle_to is not None:
            settled = await _settle(tx, step, view, old, ids, records)
            if view.tip.number < after.base.number:
                # Read by numbers, unseen by any header: one answer is not enough for it.
                await tx.insert_range(view.tip.number + 1, after.base.number, digest_of(old))
            touched.update(settled)
        changes = await changes_of(tx, list(touched), records, settled, above=bool(after.blocks))
        await tx.save_cursor(after)
        if telling is not None:
            known_to = view.tip.number if step.undo_to is None else step.undo_to.number
            await _tell(tx, [seen for seen in events if seen.block > known_to], telling)
        tx.after_commit(lambda: memory.publish(after, changes))
        await tx.commit()
    return after


async def refresh(ids: Sequence[LeaseId], view: View, records: ChainRecords, memory: Memory) -> None:
    """Bring memory in line with the rows of some leases, after a (re)load."""
    async with records.write() as tx:
        memory.publish(view, await changes_of(tx, ids, records, {}))


async def ours(tx: ChainTransaction, events: Sequence[SeenEvent]) -> tuple[Sequence[SeenEvent], set[LeaseId]]:
    """The events of this Earner's leases, and these leases; one whose creation was never seen is another Earner's."""
    created: set[LeaseId] = set()
    others: set[LeaseId] = set()
    for seen in events:
        event = seen.event
        (created if type(event) is LeaseCreated else others).add(event.lease_id)
    asked = others - created
    if not asked:
        return events, created
    known = await tx.known(sorted(asked))
    kept = created | known
    if len(known) == len(asked):
        return events, kept
    return [seen for seen in events if seen.event.lease_id in kept], kept


def digest_of(events: Sequence[SeenEvent]) -> str:
    """sha-256 over the identities of events, in the order they happened: how many in each block, and their places there."""
    _, blocks, indexes, _, _, parts = zip(*events, strict=True) if events else ((),) * 6
    counts = Counter(blocks)
    digest = hashlib.sha256("".join(counts).encode())
    for numbers in (counts.values(), indexes, parts):
        digest.update(array("q", numbers))
    return digest.hexdigest()


async def _settle(
    tx: ChainTransaction, step: Step, view: View, old: Sequence[SeenEvent], ids: set[LeaseId], records: ChainRecords
) -> dict[LeaseId, Held]:
    """Fold what is final into the rows. Events held already and those the step brings are merged by identity."""
    assert step.settle_to is not None
    holds = bool(view.blocks or step.blocks)  # nothing in the middle of a gap
    held = await tx.events_to(step.settle_to.number) if holds else []
    events: Sequence[SeenEvent] = old
    if held:
        known = {seen.identity: seen for seen in old}
        known.update((seen.identity, seen) for seen in held)
        events = sorted(known.values(), key=lambda seen: seen.place)
        ids = {seen.event.lease_id for seen in events}
    before = await tx.settled(list(ids))
    after = folded(before, events, records, step.settle_to.timestamp)
    await tx.save(after, before)
    if holds:
        await tx.settle(step.settle_to)
    return after


def folded(before: Mapping[LeaseId, Held], events: Iterable[SeenEvent], records: ChainRecords, at: int) -> dict[LeaseId, Held]:
    """Fold events in order into the leases they belong to; `at`: timestamp of a block at or after them."""
    after = dict(before)
    ours: set[LeaseId] = set()
    for seen in events:
        event = seen.event
        lease_id = event.lease_id
        held = after.get(lease_id)
        if held is None:
            if type(event) is not LeaseCreated:
                continue  # of a lease whose creation was not seen
            key = LeaseKey(records.chain_id, records.contract, lease_id)
            after[lease_id] = Held(key, event.spender, event.earner, event.price, seen.block, seen_at=at)
            ours.add(lease_id)
            continue
        if lease_id not in ours:
            held = after[lease_id] = held.copy()  # what was before stays as it was
            ours.add(lease_id)
        held.add(seen)
    return after


async def changes_of(
    tx: ChainTransaction,
    ids: Sequence[LeaseId],
    records: ChainRecords,
    settled: Mapping[LeaseId, Held],
    *,
    above: bool = True,
) -> list[Change]:
    """The newest state of leases: rows (`settled` where just written), and the events held above them, if any."""
    if not ids:
        return []
    rows = {**await tx.settled([lease_id for lease_id in ids if lease_id not in settled]), **settled}
    newest = folded(rows, await tx.events_of(ids), records, 0) if above else rows
    proofs = await tx.proofs(ids)
    if not proofs:  # most of what a long reading brings
        return list(map(Change, ids, map(newest.get, ids), repeat(Trust.PENDING)))
    return [Change(lease_id, held, trust_now(held, proofs.get(lease_id))) for lease_id in ids for held in (newest.get(lease_id),)]


def trust_now(held: Held | None, kept: KeptProof | None) -> Trust:
    """What a kept proof is worth for a lease as it stands."""
    if held is None or kept is None:
        return Trust.PENDING
    return trust_of(terms_of(held.lease), held.approved_tx, (kept.trust, kept.terms, kept.approved_tx))


async def _tell(tx: ChainTransaction, events: Sequence[SeenEvent], telling: Telling) -> None:
    for seen in events:
        name = type(seen.event).__name__
        payload = {
            "event": name,
            "block": seen.block,
            "block_hash": seen.block_hash,
            "log_index": seen.log_index,
            "transaction": seen.transaction,
            # uint256 and hostile text: numbers beyond 2^53 travel as strings.
            "arguments": {k: v if isinstance(v, bool) else str(v) for k, v in asdict(seen.event).items()},
        }
        await tx.tell(seen, f"leases/{name}", payload, telling.now())
