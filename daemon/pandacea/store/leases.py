"""Leases as settled rows, their commitments, and why the node trusts an approval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, LargeBinary, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.ids import ADDRESS, HASH32, Address, ComputationId, Hash32, LeaseId, LeaseKey, Wei
from pandacea.domain.lease import NO_EXPIRY, LeaseStatus
from pandacea.domain.lease_record import STATUS_CODE, STATUSES, LeaseRecord
from pandacea.store.bulk import execute_many, select_in, upsert_statement, with_placeholders

_STATUS_TEXT: Final = tuple(str(status.value) for status in STATUSES)

MAX_UINT_KEPT: Final = NO_EXPIRY
"""A uint64 beyond it (a lease that never expires) is kept as it."""


def _number(*, nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(BigInteger, nullable=nullable))


class LeaseRow(SQLModel, table=True):
    """One lease of this node's Earner, as of its deployment's `base` block. The newest state is this plus the events held."""

    __tablename__ = "lease"
    __table_args__ = (
        # Only leases that nobody approved: they are what pruning looks for, and they are few.
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
    """Wei, decimal: uint256 fits no SQL integer."""
    created_block: int = _number()
    status: str = Field(max_length=16)
    data_product_id: str | None = Field(default=None, max_length=66)
    expires_at: int | None = _number(nullable=True)
    max_computations: int = _number()
    committed: bytes = Field(default=b"", sa_column=Column(LargeBinary, nullable=False))
    """Ids of the computations with a result on-chain, 32 bytes each, one after the other: few, and never asked for alone."""
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
    """Why an approval counts: the Earner's signature, a second endpoint, or the operator's own word.

    Bound to the lease's terms and, unless the operator gave it, to the approving transaction.
    """

    __tablename__ = "lease_proof"
    __table_args__ = ({"sqlite_with_rowid": False},)

    deployment: int = Field(primary_key=True)
    lease_id: str = Field(primary_key=True, max_length=66)
    trust: str = Field(max_length=16)
    terms: str = Field(max_length=66)
    """sha-256 over the terms it was given for."""
    approved_tx: str | None = Field(default=None, max_length=66)
    by: str = Field(max_length=200)
    """Signer's address, the endpoints, or the operator's account and words."""
    at: int = _number()


_lease: Any = SQLModel.metadata.tables["lease"]
_proof: Any = SQLModel.metadata.tables["lease_proof"]

_COLUMNS: Final = ", ".join(column.name for column in _lease.columns if column.name != "deployment")


def _read_lease(row: Any, key: LeaseKey) -> LeaseRecord:
    (_, spender, earner, price, created, status, product, expires, most, committed, *facts, for_spender, approved_tx, seen_at) = row
    held = LeaseRecord(key, spender, earner, Wei(int(price)), created, seen_at=seen_at)
    held.status = STATUS_CODE[LeaseStatus(status)]
    held.terms = (product, expires, most)
    held.committed = _unpack_ids(committed)
    held.fact_blocks = facts
    held.resolved_for_spender = None if for_spender is None else bool(for_spender)
    held.approved_tx = approved_tx
    return held


def _is_readable(row: Any) -> bool:
    """Whether its ids are such: an earlier version kept what an endpoint had sent. Such a lease does not exist, and opens nothing."""
    lease_id, spender, earner, _, _, _, product, *_ = row
    forms = ((HASH32, lease_id), (ADDRESS, spender), (ADDRESS, earner), (HASH32, product))
    return all(value is None or form.fullmatch(value) is not None for form, value in forms)


def _pack_ids(committed: frozenset[ComputationId]) -> bytes:
    return bytes.fromhex("".join([computation[2:] for computation in sorted(committed)]))


def _unpack_ids(packed: bytes) -> frozenset[ComputationId]:
    return frozenset(ComputationId("0x" + packed[start : start + 32].hex()) for start in range(0, len(packed), 32))


def _write_lease(deployment: int, lease_id: LeaseId, held: LeaseRecord) -> tuple[Any, ...]:
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


async def settled(
    connection: AsyncConnection, deployment: int, leases: Sequence[LeaseId], chain_id: int, contract: Address
) -> dict[LeaseId, LeaseRecord]:
    """The settled rows of some leases; those never settled are missing from the answer."""
    if not leases:
        return {}
    query = f"SELECT {_COLUMNS} FROM lease WHERE deployment = ? AND lease_id IN (IN)"  # noqa: S608 - our own columns
    rows = await select_in(connection, query, (deployment,), leases)
    return {row[0]: _read_lease(row, LeaseKey(chain_id, contract, LeaseId(row[0]))) for row in rows if _is_readable(row)}


async def save(
    connection: AsyncConnection, deployment: int, leases: Mapping[LeaseId, LeaseRecord], before: Mapping[LeaseId, LeaseRecord]
) -> None:
    """Write leases as they stand at the new base; `before`: how their rows stood, so that only changes are written."""
    rows = [_write_lease(deployment, lease_id, held) for lease_id, held in leases.items() if held is not before.get(lease_id)]
    await execute_many(connection, upsert_statement(connection, _lease), rows)


SELECT_APPROVED: Final = (
    "SELECT l.lease_id, l.spender, l.earner, l.data_product_id, l.expires_at, l.max_computations, l.status, LENGTH(l.committed) / 32, "
    "l.approved_block, l.disputed_block, l.resolved_block, l.resolved_for_spender, l.approved_tx, l.price, "
    "p.trust, p.terms, p.approved_tx "
    "FROM lease l LEFT JOIN lease_proof p ON p.deployment = l.deployment AND p.lease_id = l.lease_id "
    "WHERE l.deployment = ? AND l.approved_block IS NOT NULL AND l.lease_id > ? ORDER BY l.lease_id LIMIT ?"
)


async def approved_page(connection: AsyncConnection, deployment: int, after: str, size: int) -> Sequence[Any]:
    """One page of the approved leases with their proofs, by lease id: what memory is filled from at start."""
    return (await connection.exec_driver_sql(with_placeholders(connection, SELECT_APPROVED), (deployment, after, size))).all()


async def proofs(connection: AsyncConnection, deployment: int, leases: Sequence[LeaseId]) -> dict[LeaseId, Any]:
    """The proofs kept of some leases: rows of (lease_id, trust, terms, approved_tx, by)."""
    query = "SELECT lease_id, trust, terms, approved_tx, by FROM lease_proof WHERE deployment = ? AND lease_id IN (IN)"
    return {row[0]: row for row in await select_in(connection, query, (deployment,), leases)}


async def save_proof(
    connection: AsyncConnection,
    deployment: int,
    lease_id: LeaseId,
    *,
    trust: str,
    terms: str,
    approved_tx: Hash32 | None,
    by: str,
    at: int,
) -> None:
    """Keep why an approval counts."""
    await execute_many(
        connection, upsert_statement(connection, _proof), [(deployment, lease_id, trust, terms, approved_tx, by[:200], at)]
    )


async def prune_waiting(connection: AsyncConnection, deployment: int, before: int) -> int:
    """Forget settled leases that nobody approved and that were created before a time (Unix seconds); returns how many."""
    sql = with_placeholders(connection, "DELETE FROM lease WHERE deployment = ? AND approved_block IS NULL AND seen_at < ?")
    return int((await connection.exec_driver_sql(sql, (deployment, before))).rowcount)


async def existing(connection: AsyncConnection, deployment: int, leases: Sequence[LeaseId]) -> set[LeaseId]:
    """Those of the leases that have a settled row."""
    query = "SELECT lease_id FROM lease WHERE deployment = ? AND lease_id IN (IN)"
    return {row[0] for row in await select_in(connection, query, (deployment,), leases)}
