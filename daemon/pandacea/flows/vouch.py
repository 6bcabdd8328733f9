"""Why an approval counts: the Earner's signature, a second endpoint, or the operator's own word, kept with the terms it is for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pandacea.domain.ids import Hash32, LeaseId
from pandacea.domain.lease import FINAL, Lease
from pandacea.domain.seen import Held
from pandacea.domain.trust import TRUSTED, Trust, terms_of
from pandacea.errors import Refused
from pandacea.flows.follow import Memory, changes_of, folded, trust_now
from pandacea.flows.records import ChainRecords, ChainTransaction, KeptProof


@dataclass(frozen=True, slots=True)
class Approval:
    """An approved lease, and what its approval is worth now."""

    lease: Lease
    approved_tx: Hash32 | None
    terms: str
    """Digest of its terms (`domain.access.terms_of`): what a proof is bound to."""
    trust: Trust
    by: str
    """Who vouches, or why nobody does; empty: nobody has looked yet."""


async def held_now(lease_id: LeaseId, records: ChainRecords) -> Held | None:
    """A lease as the database has it, approved or not; None: its creation was never seen."""
    async with records.write() as tx:
        return await _held(lease_id, tx, records)


async def prove(lease_id: LeaseId, proof: KeptProof, at: int, records: ChainRecords, memory: Memory) -> None:
    """Keep why an approval counts, or why it does not; `at` in Unix seconds. It takes nothing back that the operator said."""
    async with records.write() as tx:
        held = await _held(lease_id, tx, records)
        if held is None or (await _worth(held, tx))[0] is not Trust.ACKNOWLEDGED:
            await tx.save_proof(lease_id, proof, at)
        await _publish(lease_id, tx, records, memory)


async def look(lease_id: LeaseId, records: ChainRecords) -> Approval:
    """What the operator must see before vouching for a lease.

    Raises:
        Refused: the lease is not known here, or nobody approved it.
        Unavailable: the database failed.
    """
    async with records.write() as tx:
        return await _approval(lease_id, tx, records)


async def acknowledge(lease_id: LeaseId, terms: str, by: str, at: int, records: ChainRecords, memory: Memory | None) -> Approval:
    """The operator vouches for the approval of a lease whose proof cannot be had (v0, a wallet contract, a relayed approval).

    `terms`: digest of what the operator was shown; it vouches for nothing else, but for another approving transaction of the same
    terms, too. `by`: whose word it is; `at`: Unix seconds; `memory`: of the node, None where none runs.

    Raises:
        Refused: the lease is not known here, is not approved, has ended, is proved already, or its terms are not those shown.
        Unavailable: the database failed.
    """
    async with records.write() as tx:
        seen = await _approval(lease_id, tx, records)
        if seen.terms != terms:
            raise Refused(f"The terms of lease {lease_id} are not those that were shown. Look at them again.")
        if seen.trust in TRUSTED:
            raise Refused(f"The approval of lease {lease_id} counts already ({seen.trust.value}: {seen.by}).")
        if seen.lease.status in FINAL:
            raise Refused(f"Lease {lease_id} is {seen.lease.status.value}: nothing can be computed under it any more.")
        await tx.save_proof(lease_id, KeptProof(Trust.ACKNOWLEDGED, terms, None, by), at)
        await _publish(lease_id, tx, records, memory)
    return replace(seen, trust=Trust.ACKNOWLEDGED, by=by)


async def _held(lease_id: LeaseId, tx: ChainTransaction, records: ChainRecords) -> Held | None:
    return folded(await tx.settled([lease_id]), await tx.events_of([lease_id]), records, 0).get(lease_id)


async def _approval(lease_id: LeaseId, tx: ChainTransaction, records: ChainRecords) -> Approval:
    held = await _held(lease_id, tx, records)
    if held is None:
        raise Refused(f"No lease {lease_id} of this Earner was seen on the chain. Check the id, and that the node caught up.")
    if held.approved_block is None:
        raise Refused(f"Lease {lease_id} is not approved on the chain; an approval that is not there cannot be acknowledged.")
    trust, by = await _worth(held, tx)
    return Approval(held.lease, held.approved_tx, terms_of(held.lease), trust, by)


async def _worth(held: Held, tx: ChainTransaction) -> tuple[Trust, str]:
    kept = (await tx.proofs([held.key.lease_id])).get(held.key.lease_id)
    trust = trust_now(held, kept)
    return trust, "" if kept is None or trust is Trust.PENDING else kept.by


async def _publish(lease_id: LeaseId, tx: ChainTransaction, records: ChainRecords, memory: Memory | None) -> None:
    changes = await changes_of(tx, [lease_id], records, {})
    view = None if memory is None else memory.view
    if memory is not None and view is not None:
        known, seen = memory, view
        tx.after_commit(lambda: known.publish(seen, changes))
    await tx.commit()
