"""The audit log: rows that are chained by hash and that the database's triggers keep from being changed or deleted."""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, Text, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.store.jobs import JobRow
from pandacea_sdk.protocol.audit import EMPTY_HEAD, AuditRow, chain_entry
from pandacea_sdk.protocol.json_types import JsonMapping


class AuditLogRow(SQLModel, table=True):
    """One row of the audit log, written once with what it records."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_by_lease", "lease_id", "seq"),)

    seq: int = Field(sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False))
    lease_id: str | None = Field(default=None, max_length=66)
    """For look-ups only: what counts is the entry."""
    entry: str = Field(sa_column=Column(Text, nullable=False))
    """RFC 8785 JSON."""
    previous: str = Field(max_length=64)
    hash: str = Field(max_length=64)


_audit: Final = SQLModel.metadata.tables["audit"]
_job: Final = SQLModel.metadata.tables[str(JobRow.__tablename__)]


class AuditTable:
    """The audit log as one connection sees it."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Reads may use any connection; writes need the transaction's."""
        self._connection = connection

    async def find_head(self) -> tuple[int, str]:
        """Return number and hash of the last row; of an empty log 0 and `EMPTY_HEAD`."""
        query = select(_audit.c.seq, _audit.c.hash).order_by(_audit.c.seq.desc()).limit(1)
        row = (await self._connection.execute(query)).first()
        return (0, EMPTY_HEAD) if row is None else (int(row[0]), str(row[1]))

    async def append_entry(self, event: str, at: float, by: str, members: JsonMapping) -> None:
        """Write one row in this transaction.

        Args:
            event: what happened, such as `run-ended`.
            at: Unix seconds.
            by: who did it: an address, `operator NAME`, or `node`.
            members: more members of the entry.
        """
        seq, head = await self.find_head()
        row = chain_entry(seq + 1, head, {"event": event, "at": at, "by": by, **members, "salt": secrets.token_hex(16)})
        values = {"seq": row.seq, "entry": row.entry, "previous": row.previous, "hash": row.hash}
        await self._connection.execute(insert(_audit).values(lease_id=members.get("lease_id"), **values))

    async def list_rows(self, after: int = 0, limit: int = 1000) -> list[AuditRow]:
        """List the rows with a number above `after`, in order."""
        query = select(_audit.c.seq, _audit.c.entry, _audit.c.previous, _audit.c.hash).where(_audit.c.seq > after)
        rows = (await self._connection.execute(query.order_by(_audit.c.seq).limit(limit))).all()
        return [AuditRow(int(row[0]), row[1], row[2], row[3]) for row in rows]

    async def list_signed(self) -> list[tuple[str, object, str | None]]:
        """List (computation id, receipt, manifest) of every result that the node has signed and keeps."""
        query = select(_job.c.computation_id, _job.c.receipt, _job.c.manifest).where(_job.c.result_hash.is_not(None))
        rows = (await self._connection.execute(query.order_by(_job.c.computation_id))).all()
        return [(row[0], row[1], row[2]) for row in rows if row[1] is not None]
