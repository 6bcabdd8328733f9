"""Store why an approval counts: the Earner's signature, a second endpoint, or the operator's acknowledgement, with the terms it is for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pandacea.domain.approval_proof import COUNTED_PROOFS, ProofStatus, digest_lease_terms
from pandacea.domain.ids import Hash32, LeaseId
from pandacea.domain.lease import FINAL_STATUSES, Lease
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Refused
from pandacea.flows.chain_store import ChainStore, ChainUnitOfWork, StoredProof
from pandacea.flows.follow import LeaseCacheWriter, current_proof_status, fold_events, load_changes


@dataclass(frozen=True, slots=True)
class ApprovedLease:
    """An approved lease, and what proves its approval now."""

    lease: Lease
    approved_tx: Hash32 | None
    terms_digest: str
    """Digest of its terms (`digest_lease_terms`): what a proof is bound to."""
    proof_status: ProofStatus
    attested_by: str
    """Who attests the approval, or why nobody does; empty: it was not checked yet."""


async def load_lease(lease_id: LeaseId, store: ChainStore) -> LeaseRecord | None:
    """Load a lease as the database has it, approved or not; None: its creation was never seen."""
    async with store.unit_of_work() as tx:
        return await _held(lease_id, tx, store)


async def save_proof(lease_id: LeaseId, proof: StoredProof, at: int, store: ChainStore, cache: LeaseCacheWriter) -> None:
    """Store why an approval counts, or why it does not; `at` in Unix seconds. An acknowledgement by the operator stays."""
    async with store.unit_of_work() as tx:
        held = await _held(lease_id, tx, store)
        if held is None or (await _worth(held, tx))[0] is not ProofStatus.ACKNOWLEDGED:
            await tx.save_proof(lease_id, proof, at)
        await _publish(lease_id, tx, store, cache)


async def load_approval(lease_id: LeaseId, store: ChainStore) -> ApprovedLease:
    """Load what the operator must see before acknowledging a lease.

    Raises:
        Refused: the lease is not known here, or nobody approved it.
        Unavailable: the database failed.
    """
    async with store.unit_of_work() as tx:
        return await _approval(lease_id, tx, store)


async def acknowledge_lease(
    lease_id: LeaseId, terms_digest: str, attested_by: str, at: int, store: ChainStore, cache: LeaseCacheWriter | None
) -> ApprovedLease:
    """Store the operator's acknowledgement of an approval that cannot be proved (v0, a wallet contract, a relayed approval).

    Args:
        lease_id: the lease.
        terms_digest: of what the operator was shown; it holds for these terms alone, in whichever transaction they are approved.
        attested_by: who acknowledges.
        at: Unix seconds.
        store: the rows.
        cache: the running node's; None where none runs.

    Raises:
        Refused: the lease is not known here, is not approved, has ended, is proved already, or its terms are not those shown.
        Unavailable: the database failed.
    """
    async with store.unit_of_work() as tx:
        seen = await _approval(lease_id, tx, store)
        if seen.terms_digest != terms_digest:
            raise Refused(f"The terms of lease {lease_id} are not those that were shown. Look at them again.")
        if seen.proof_status in COUNTED_PROOFS:
            raise Refused(f"The approval of lease {lease_id} counts already ({seen.proof_status.value}: {seen.attested_by}).")
        if seen.lease.status in FINAL_STATUSES:
            raise Refused(f"Lease {lease_id} is {seen.lease.status.value}: nothing can be computed under it any more.")
        await tx.save_proof(lease_id, StoredProof(ProofStatus.ACKNOWLEDGED, terms_digest, None, attested_by), at)
        await _publish(lease_id, tx, store, cache)
    return replace(seen, proof_status=ProofStatus.ACKNOWLEDGED, attested_by=attested_by)


async def _held(lease_id: LeaseId, tx: ChainUnitOfWork, records: ChainStore) -> LeaseRecord | None:
    return fold_events(await tx.load_settled([lease_id]), await tx.list_events([lease_id]), records, 0).get(lease_id)


async def _approval(lease_id: LeaseId, tx: ChainUnitOfWork, records: ChainStore) -> ApprovedLease:
    held = await _held(lease_id, tx, records)
    if held is None:
        raise Refused(f"No lease {lease_id} of this Earner was seen on the chain. Check the id, and that the node caught up.")
    if held.approved_block is None:
        raise Refused(f"Lease {lease_id} is not approved on the chain; an approval that is not there cannot be acknowledged.")
    trust, by = await _worth(held, tx)
    return ApprovedLease(held.lease, held.approved_tx, digest_lease_terms(held.lease), trust, by)


async def _worth(held: LeaseRecord, tx: ChainUnitOfWork) -> tuple[ProofStatus, str]:
    kept = (await tx.load_proofs([held.key.lease_id])).get(held.key.lease_id)
    trust = current_proof_status(held, kept)
    return trust, "" if kept is None or trust is ProofStatus.PENDING else kept.attested_by


async def _publish(lease_id: LeaseId, tx: ChainUnitOfWork, records: ChainStore, memory: LeaseCacheWriter | None) -> None:
    changes = await load_changes(tx, [lease_id], records, {})
    view = None if memory is None else memory.chain_view
    if memory is not None and view is not None:
        known, seen = memory, view
        tx.after_commit(lambda: known.apply_changes(seen, changes))
    await tx.commit()
