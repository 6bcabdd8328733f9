"""Scripts submitted for approval."""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from sqlalchemy import JSON, Column, Index, Text, delete, func, insert, select, update
from sqlalchemy.engine import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.code_approval import CodeRecord, CodeState
from pandacea.domain.ids import Address
from pandacea_sdk.protocol.json_types import JsonObject


class CodeSubmissionRow(SQLModel, table=True):
    """The columns of `domain.code_approval.CodeRecord`."""

    __tablename__ = "code_submission"
    __table_args__ = (Index("code_by_script", "product_id", "code_sha256"), Index("code_by_state", "state", "created_at"))

    code_id: str = Field(primary_key=True, max_length=66)
    product_id: str = Field(max_length=64)
    code: str = Field(sa_column=Column(Text, nullable=False))
    code_sha256: str = Field(max_length=64)
    inputs: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    uploads: list[str] = Field(sa_column=Column(JSON, nullable=False))
    params_schema: JsonObject = Field(sa_column=Column(JSON, nullable=False))
    note: str = Field(sa_column=Column(Text, nullable=False))
    submitter: str = Field(max_length=42)
    known: bool
    created_at: float
    columns: dict[str, str] = Field(sa_column=Column(JSON, nullable=False))
    state: str = Field(max_length=16)
    reason: str = Field(sa_column=Column(Text, nullable=False))
    decided_at: float | None = None


_code: Final = SQLModel.metadata.tables["code_submission"]


def _read(row: RowMapping) -> CodeRecord:
    return CodeRecord(**{**row, "state": CodeState(row["state"])})


class CodeTable:
    """The submitted scripts as one connection sees them."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Reads may use any connection; writes need the transaction's."""
        self._connection = connection

    async def insert_submission(self, submission: CodeRecord) -> None:
        """Insert a new submission."""
        values = asdict(submission)
        await self._connection.execute(
            insert(_code), [{**values, "uploads": list(values["uploads"]), "columns": dict(values["columns"])}]
        )

    async def find_submission(self, code_id: str) -> CodeRecord | None:
        """Return a submission, or None."""
        row = (await self._connection.execute(select(_code).where(_code.c.code_id == code_id))).mappings().first()
        return None if row is None else _read(row)

    async def find_by_script(self, product_id: str, code_sha256: str) -> list[CodeRecord]:
        """Return every submission of one script for one product, oldest first."""
        here = (_code.c.product_id == product_id) & (_code.c.code_sha256 == code_sha256)
        rows = (await self._connection.execute(select(_code).where(here).order_by(_code.c.created_at))).mappings().all()
        return [_read(row) for row in rows]

    async def list_submissions(self, state: CodeState | None = None) -> list[CodeRecord]:
        """List all submissions, or those in a state, oldest first."""
        query = select(_code).order_by(_code.c.created_at)
        if state is not None:
            query = query.where(_code.c.state == state)
        return [_read(row) for row in (await self._connection.execute(query)).mappings().all()]

    async def count_pending(self, *, submitter: Address | None = None, known: bool | None = None) -> int:
        """Count the submissions that wait for a decision: of one submitter, or of those with (`known`) or without a lease."""
        query = select(func.count()).where(_code.c.state == CodeState.PENDING)
        if submitter is not None:
            query = query.where(_code.c.submitter == submitter)
        if known is not None:
            query = query.where(_code.c.known == known)
        return int((await self._connection.execute(query)).scalar_one())

    async def record_decision(self, code_id: str, state: CodeState, reason: str, now: float) -> bool:
        """Write the Earner's decision; False when there is no such submission."""
        decided = update(_code).where(_code.c.code_id == code_id).values(state=state, reason=reason, decided_at=now)
        return bool((await self._connection.execute(decided)).rowcount == 1)

    async def prune_submissions(self, before: float, strangers_before: float) -> int:
        """Delete what was submitted before a time and never decided on, and what was rejected before it; returns how many.

        Times in Unix seconds; `strangers_before` applies to undecided submissions of people without a lease.
        """
        known = (_code.c.created_at < before) | (_code.c.known.is_(False) & (_code.c.created_at < strangers_before))
        undecided = (_code.c.state == CodeState.PENDING) & known
        rejected = (_code.c.state == CodeState.REJECTED) & (_code.c.decided_at < before)
        return int((await self._connection.execute(delete(_code).where(undecided | rejected))).rowcount)
