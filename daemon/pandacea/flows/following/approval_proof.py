"""Store why an approval counts: the Earner's signature, a second endpoint, or the operator's acknowledgement, with the terms it is for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from pandacea.domain.approval_proof import COUNTED_PROOFS, ProofStatus, digest_lease_terms
from pandacea.domain.ids import Hash32, LeaseId
from pandacea.domain.lease import FINAL_STATUSES, Lease
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Refused
from pandacea.flows.following.chain_store import ChainStore, ChainUnitOfWork, StoredProof
from pandacea.flows.following.follow import LeaseCacheWriter, current_proof_status, fold_events, load_changes


@dataclass(frozen=True, slots=True)
class ApprovalReport:
    """An approved lease, and what proves its approval now."""

    lease: Lease
    approved_tx: Hash32 | None
    terms_digest: str
    """Digest of its terms (`digest_lease_terms`): what a proof is bound to."""
    proof_status: ProofStatus
    attested_by: str
    """Who attests the approval, or why nobody does; empty: it was not checked yet."""


async def load_lease(lease_id: LeaseId, store: ChainStore) -> LeaseRecord | None:
    """Load a lease as the database has it, approved or not; None: its creation was never report."""
    async with store.unit_of_work() as tx:
        return await _load_record(lease_id, tx, store)


async def save_proof(lease_id: LeaseId, proof: StoredProof, at: int, store: ChainStore, cache: LeaseCacheWriter) -> None:
    """Store why an approval counts, or why it does not; `at` in Unix seconds. An acknowledgement by the operator stays."""
    async with store.unit_of_work() as tx:
        record = await _load_record(lease_id, tx, store)
        if record is None or (await _load_attestation(record, tx))[0] is not ProofStatus.ACKNOWLEDGED:
            await tx.leases.save_proof(lease_id, proof, at)
        await _commit(lease_id, tx, store, cache)


async def load_approval(lease_id: LeaseId, store: ChainStore) -> ApprovalReport:
    """Load what the operator must see before acknowledging a lease.

    Raises:
        Refused: the lease is not known here, or nobody approved it.
        Unavailable: the database failed.
    """
    async with store.unit_of_work() as tx:
        return await _require_approved(lease_id, tx, store)


async def acknowledge_lease(
    lease_id: LeaseId, terms_digest: str, attested_by: str, at: int, store: ChainStore, cache: LeaseCacheWriter | None
) -> ApprovalReport:
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
        report = await _require_approved(lease_id, tx, store)
        if report.terms_digest != terms_digest:
            raise Refused(f"The terms of lease {lease_id} are not those that were shown. Look at them again.")
        if report.proof_status in COUNTED_PROOFS:
            raise Refused(f"The approval of lease {lease_id} counts already ({report.proof_status.value}: {report.attested_by}).")
        if report.lease.status in FINAL_STATUSES:
            raise Refused(f"Lease {lease_id} is {report.lease.status.value}: nothing can be computed under it any more.")
        await tx.leases.save_proof(lease_id, StoredProof(ProofStatus.ACKNOWLEDGED, terms_digest, None, attested_by), at)
        await _commit(lease_id, tx, store, cache)
    return replace(report, proof_status=ProofStatus.ACKNOWLEDGED, attested_by=attested_by)


async def _load_record(lease_id: LeaseId, tx: ChainUnitOfWork, store: ChainStore) -> LeaseRecord | None:
    settled = await tx.leases.load_settled([lease_id])
    return fold_events(settled, await tx.chain.list_events([lease_id]), store, 0).get(lease_id)


async def _require_approved(lease_id: LeaseId, tx: ChainUnitOfWork, store: ChainStore) -> ApprovalReport:
    record = await _load_record(lease_id, tx, store)
    if record is None:
        raise Refused(f"No lease {lease_id} of this Earner was seen on the chain. Check the id, and that the node caught up.")
    if record.approved_block is None:
        raise Refused(f"Lease {lease_id} is not approved on the chain; an approval that is not there cannot be acknowledged.")
    status, attested_by = await _load_attestation(record, tx)
    return ApprovalReport(record.lease, record.approved_tx, digest_lease_terms(record.lease), status, attested_by)


async def _load_attestation(record: LeaseRecord, tx: ChainUnitOfWork) -> tuple[ProofStatus, str]:
    """Return the status of the stored proof now, and who attests it; empty while the approval was not checked."""
    lease_id = record.key.lease_id
    proof = (await tx.leases.load_proofs([lease_id])).get(lease_id)
    status = current_proof_status(record, proof)
    return status, "" if proof is None or status is ProofStatus.PENDING else proof.attested_by


async def _commit(lease_id: LeaseId, tx: ChainUnitOfWork, store: ChainStore, cache: LeaseCacheWriter | None) -> None:
    """Commit, and then bring the cache, if there is one, in line with the lease."""
    if cache is not None:
        changes = await load_changes(tx, [lease_id], store, {})
        if (view := cache.chain_view) is not None:
            tx.after_commit(partial(cache.apply_changes, view, changes))
    await tx.commit()
