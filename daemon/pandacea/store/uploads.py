"""Files that Spenders uploaded for their scripts: a row for each file in the uploads folder."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, ColumnElement, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.ids import Address


class UploadRow(SQLModel, table=True):
    """One upload of one Spender. It is stored for each Spender apart, so that nobody can find out what another uploaded."""

    __tablename__ = "upload"

    spender: str = Field(primary_key=True, max_length=42)
    sha256: str = Field(primary_key=True, max_length=64)
    size: int = Field(sa_type=BigInteger)
    expires_at: float = Field(index=True)


_upload: Final = SQLModel.metadata.tables["upload"]


class UploadTable:
    """The uploads as one connection sees them."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Reads may use any connection; writes need the transaction's."""
        self._connection = connection

    async def put_upload(self, spender: Address, sha256: str, size: int, expires_at: float) -> None:
        """Insert an upload, or keep it for longer; `expires_at` in Unix seconds."""
        await self.delete_upload(spender, sha256)
        row = {"spender": spender, "sha256": sha256, "size": size, "expires_at": expires_at}
        await self._connection.execute(insert(_upload), [row])

    async def find_size(self, spender: Address, sha256: str, now: float) -> int | None:
        """Return the bytes of a Spender's upload; None: it is not here, or has expired."""
        here = _here(spender, sha256) & (_upload.c.expires_at > now)
        found = (await self._connection.execute(select(_upload.c.size).where(here))).scalar_one_or_none()
        return None if found is None else int(found)

    async def find_upload(self, spender: Address, sha256: str, now: float) -> tuple[int, float] | None:
        """Return bytes and expiry (Unix seconds) of a Spender's upload; None: it is not here, or has expired."""
        here = _here(spender, sha256) & (_upload.c.expires_at > now)
        found = (await self._connection.execute(select(_upload.c.size, _upload.c.expires_at).where(here))).one_or_none()
        return None if found is None else (int(found[0]), float(found[1]))

    async def count_usage(self, spender: Address | None = None) -> tuple[int, int]:
        """Count (files, bytes) of a Spender, or of all Spenders."""
        query = select(func.count(), func.coalesce(func.sum(_upload.c.size), 0))
        if spender is not None:
            query = query.where(_upload.c.spender == spender)
        count, size = (await self._connection.execute(query)).one()
        return int(count), int(size)

    async def list_expired(self, now: float) -> list[tuple[str, str]]:
        """List (spender, sha-256) of the uploads that have expired."""
        query = select(_upload.c.spender, _upload.c.sha256).where(_upload.c.expires_at <= now)
        return [(row[0], row[1]) for row in (await self._connection.execute(query)).all()]

    async def list_all(self) -> set[tuple[str, str]]:
        """List (spender, sha-256) of every upload."""
        query = select(_upload.c.spender, _upload.c.sha256)
        return {(row[0], row[1]) for row in (await self._connection.execute(query)).all()}

    async def delete_upload(self, spender: str, sha256: str) -> None:
        """Delete an upload's row; its file is deleted after the commit."""
        await self._connection.execute(delete(_upload).where(_here(spender, sha256)))


def _here(spender: str, sha256: str) -> ColumnElement[bool]:
    return (_upload.c.spender == spender) & (_upload.c.sha256 == sha256)
