"""Leases as settled rows, their commitments, and why the node trusts an approval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.approval_proof import ProofStatus
from pandacea.domain.ids import ADDRESS, HASH32, ComputationId, LeaseId, LeaseKey, Wei
from pandacea.domain.lease import NO_EXPIRY, LeaseStatus
from pandacea.domain.lease_record import STATUS_CODE, STATUSES, LeaseRecord
from pandacea.flows.following.chain_store import ApprovedLease, StoredProof
from pandacea.store.bulk import DbRow, execute_many, select_in, select_statement, upsert_statement, with_placeholders
from pandacea.store.deployments import DeploymentScope

_STATUS_TEXT: Final = tuple(str(status.value) for status in STATUSES)

MAX_UINT_KEPT: Final = NO_EXPIRY
"""A larger uint64 (a lease that never expires) is stored as this number."""
ATTESTED_BY_CHARACTERS: Final = 200
"""Characters of a proof's origin that are stored."""


def _number(*, nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(BigInteger, nullable=nullable))


class LeaseRow(SQLModel, table=True):
    """One lease of this node's Earner as of its deployment's `base` block. The newest state is this and the stored events above it."""

    __tablename__ = "lease"
    __table_args__ = (
        # Only leases that are not approved: pruning looks for them, and they are few.
        Index(
            "lease_waiting",
            "deployment",
            "seen_at",
            sqlite_where=text("approved_block IS NULL"),
            postgresql_where=text("approved_block IS NULL"),
        ),
    )

    deployment: int = Field(primary_key=True)
    lease_id: str = Field(primary_key=True, max_length=66)
    spender: str = Field(max_length=42)
    earner: str = Field(max_length=42)
    price: str = Field(max_length=78)
    """Wei, decimal: an SQL integer is too small for uint256."""
    created_block: int = _number()
    status: str = Field(max_length=16)
    data_product_id: str | None = Field(default=None, max_length=66)
    expires_at: int | None = _number(nullable=True)
    max_computations: int = _number()
    committed: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    """Ids of the computations with a result on-chain, 32 bytes each, concatenated: they are few, and always read together."""
    approved_block: int | None = _number(nullable=True)
    executed_block: int | None = _number(nullable=True)
    cancelled_block: int | None = _number(nullable=True)
    finalized_block: int | None = _number(nullable=True)
    disputed_block: int | None = _number(nullable=True)
    resolved_block: int | None = _number(nullable=True)
    resolved_for_spender: bool | None = None
    approved_tx: str | None = Field(default=None, max_length=66)
    seen_at: int = _number()


class LeaseProofRow(SQLModel, table=True):
    """Why an approval counts: the Earner's signature, a second endpoint, or the operator's acknowledgement.

    Bound to the lease's terms and, unless the operator gave it, to the approving transaction.
    """

    __tablename__ = "lease_proof"
    __table_args__ = ({"sqlite_with_rowid": False},)

    deployment: int = Field(primary_key=True)
    lease_id: str = Field(primary_key=True, max_length=66)
    trust: str = Field(max_length=16)
    terms: str = Field(max_length=66)
    """sha-256 over the lease's terms at that time."""
    approved_tx: str | None = Field(default=None, max_length=66)
    by: str = Field(max_length=ATTESTED_BY_CHARACTERS)
    """The signer's address, the endpoints, or the operator's account and reason."""
    at: int = _number()


_lease: Final = SQLModel.metadata.tables["lease"]
_proof: Final = SQLModel.metadata.tables["lease_proof"]

_SELECT_LEASES: Final = select_statement(
    [column.name for column in _lease.columns if column.name != "deployment"],
    "FROM lease WHERE deployment = ? AND lease_id IN (IN)",
)


def _read_lease(row: DbRow, key: LeaseKey) -> LeaseRecord:
    (_, spender, earner, price, created, status, product, expires, most, committed, *facts, for_spender, approved_tx, seen_at) = row
    held = LeaseRecord(key, spender, earner, Wei(int(price)), created, seen_at=seen_at)
    held.status = STATUS_CODE[LeaseStatus(status)]
    held.terms = (product, expires, most)
    held.committed = _unpack_ids(committed)
    held.fact_blocks = facts
    held.resolved_for_spender = None if for_spender is None else bool(for_spender)
    held.approved_tx = approved_tx
    return held


def _is_readable(row: DbRow) -> bool:
    """Whether its ids are well-formed: an earlier version stored whatever an endpoint had sent. Such a lease gives no access."""
    lease_id, spender, earner, _, _, _, product, *_ = row
    forms = ((HASH32, lease_id), (ADDRESS, spender), (ADDRESS, earner), (HASH32, product))
    return all(value is None or form.fullmatch(value) is not None for form, value in forms)


def _pack_ids(committed: frozenset[ComputationId]) -> bytes:
    return bytes.fromhex("".join([computation[2:] for computation in sorted(committed)]))


def _unpack_ids(packed: bytes) -> frozenset[ComputationId]:
    return frozenset(ComputationId("0x" + packed[start : start + 32].hex()) for start in range(0, len(packed), 32))


def _write_lease(deployment: int, lease_id: LeaseId, held: LeaseRecord) -> tuple[object, ...]:
    product, expires, most = held.terms
    return (
        deployment,
        lease_id,
        held.spender,
        held.earner,
        str(held.price),
        held.created_block,
        _STATUS_TEXT[held.status],
        product,
        None if expires is None else min(expires, MAX_UINT_KEPT),
        most,
        _pack_ids(held.committed),
        *held.fact_blocks,
        held.resolved_for_spender,
        held.approved_tx,
        min(held.seen_at, MAX_UINT_KEPT),
    )


_APPROVED_COLUMNS: Final = {
    "lease_id": "l.lease_id",
    "spender": "l.spender",
    "earner": "l.earner",
    "product": "l.data_product_id",
    "expires_at": "l.expires_at",
    "max_computations": "l.max_computations",
    "status": "l.status",
    "committed_count": "LENGTH(l.committed) / 32",
    "approved_block": "l.approved_block",
    "disputed_block": "l.disputed_block",
    "resolved_block": "l.resolved_block",
    "resolved_for_spender": "l.resolved_for_spender",
    "approved_tx": "l.approved_tx",
    "price": "l.price",
    "proof_status": "p.trust",
    "proof_terms_digest": "p.terms",
    "proof_tx": "p.approved_tx",
}
"""What each field of an `ApprovedLease` is selected from."""

_SELECT_APPROVED: Final = select_statement(
    (_APPROVED_COLUMNS[name] for name in ApprovedLease._fields),
    "FROM lease l LEFT JOIN lease_proof p ON p.deployment = l.deployment AND p.lease_id = l.lease_id "
    "WHERE l.deployment = ? AND l.approved_block IS NOT NULL AND l.lease_id > ? ORDER BY l.lease_id LIMIT ?",
)


class LeaseTable:
    """Settled leases and the proofs of their approvals, of one deployment, as one connection sees them."""

    def __init__(self, connection: AsyncConnection, scope: DeploymentScope) -> None:
        """Reads may use any connection; writes need the transaction's."""
        self._connection = connection
        self._scope = scope

    async def load_settled(self, ids: Sequence[LeaseId]) -> dict[LeaseId, LeaseRecord]:
        """Return the settled rows of some leases; those never settled are missing from the answer."""
        if not ids:
            return {}
        rows = await select_in(self._connection, _SELECT_LEASES, (self._scope.id,), ids)
        chain_id, contract = self._scope.chain_id, self._scope.contract
        return {row[0]: _read_lease(row, LeaseKey(chain_id, contract, LeaseId(row[0]))) for row in rows if _is_readable(row)}

    async def list_waiting(self) -> list[LeaseId]:
        """List the leases that nobody approved, as settled or seen since."""
        sql = with_placeholders(
            self._connection,
            "SELECT lease_id FROM lease WHERE deployment = ? AND approved_block IS NULL AND status = 'created' "
            "UNION SELECT lease_id FROM chain_event WHERE deployment = ? AND kind = 'LeaseCreated'",
        )
        return [LeaseId(row[0]) for row in (await self._connection.exec_driver_sql(sql, (self._scope.id, self._scope.id))).all()]

    async def list_payable(self) -> list[LeaseId]:
        """List the approved and executed leases that have a price and a committed result."""
        sql = with_placeholders(
            self._connection,
            "SELECT lease_id FROM lease WHERE deployment = ? AND status IN ('approved', 'executed') AND LENGTH(committed) > 0 "
            "AND price <> '0' ORDER BY lease_id",
        )
        return [LeaseId(row[0]) for row in (await self._connection.exec_driver_sql(sql, (self._scope.id,))).all()]

    async def find_existing(self, ids: Sequence[LeaseId]) -> set[LeaseId]:
        """Return those of the leases that have a settled row."""
        query = "SELECT lease_id FROM lease WHERE deployment = ? AND lease_id IN (IN)"
        return {row[0] for row in await select_in(self._connection, query, (self._scope.id,), ids)}

    async def list_contradictory(self, limit: int) -> list[LeaseId]:
        """List settled leases, `limit` at most, that have no terms, or were used without an approval: an event of theirs is missing."""
        sql = (
            "SELECT lease_id FROM lease WHERE deployment = ? AND (data_product_id IS NULL OR "
            "(approved_block IS NULL AND (executed_block IS NOT NULL OR LENGTH(committed) > 0))) LIMIT ?"
        )
        result = await self._connection.exec_driver_sql(with_placeholders(self._connection, sql), (self._scope.id, limit))
        return [row[0] for row in result.all()]

    async def load_approved_page(self, after: LeaseId | None, size: int) -> list[ApprovedLease]:
        """Return one page of the approved leases with their proofs, by lease id: the lease cache is filled from it at start."""
        sql = with_placeholders(self._connection, _SELECT_APPROVED)
        result = await self._connection.exec_driver_sql(sql, (self._scope.id, after or "", size))
        # From the driver's own tuples: a Row of SQLAlchemy's in between would cost as much again.
        return list(map(ApprovedLease._make, result.cursor.fetchall()))

    async def save_leases(self, leases: Mapping[LeaseId, LeaseRecord], before: Mapping[LeaseId, LeaseRecord]) -> None:
        """Write leases as they stand at the new base; `before`: how their rows stood, so that only changes are written."""
        deployment = self._scope.id
        rows = [_write_lease(deployment, lease_id, held) for lease_id, held in leases.items() if held is not before.get(lease_id)]
        await execute_many(self._connection, upsert_statement(self._connection, _lease), rows)

    async def load_proofs(self, ids: Sequence[LeaseId]) -> dict[LeaseId, StoredProof]:
        """Return the stored proofs of some leases."""
        if not self._scope.may_have_proofs:
            return {}
        query = "SELECT lease_id, trust, terms, approved_tx, by FROM lease_proof WHERE deployment = ? AND lease_id IN (IN)"
        rows = await select_in(self._connection, query, (self._scope.id,), ids)
        return {
            lease_id: StoredProof(ProofStatus(status), terms, approved_tx, by) for lease_id, status, terms, approved_tx, by in rows
        }

    async def save_proof(self, lease_id: LeaseId, proof: StoredProof, at: int) -> None:
        """Write why an approval counts, or why it does not; `at` in Unix seconds."""
        self._scope.may_have_proofs = True
        by = proof.attested_by[:ATTESTED_BY_CHARACTERS]
        row = (self._scope.id, lease_id, proof.status.value, proof.terms_digest, proof.approved_tx, by, at)
        await execute_many(self._connection, upsert_statement(self._connection, _proof), [row])

    async def delete_proofs(self) -> None:
        """Delete every proof and acknowledgement."""
        sql = with_placeholders(self._connection, "DELETE FROM lease_proof WHERE deployment = ?")
        await self._connection.exec_driver_sql(sql, (self._scope.id,))

    async def prune_waiting(self, before: int) -> int:
        """Delete settled leases that nobody approved and that were created before a time (Unix seconds); returns how many."""
        sql = with_placeholders(
            self._connection, "DELETE FROM lease WHERE deployment = ? AND approved_block IS NULL AND seen_at < ?"
        )
        return int((await self._connection.exec_driver_sql(sql, (self._scope.id, before))).rowcount)

    async def delete_all(self) -> None:
        """Delete every settled lease: the chain is read again. Proofs stay, for they do not rest on what an endpoint said."""
        sql = with_placeholders(self._connection, "DELETE FROM lease WHERE deployment = ?")
        await self._connection.exec_driver_sql(sql, (self._scope.id,))
