"""The database's copy of the generation, and from when on signed requests are accepted."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.flows.unit_of_work import Generation


class GenerationRow(SQLModel, table=True):
    """One row: how often a node has started on this database or a leased computation has started to run."""

    __tablename__ = "generation"

    id: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    number: int = Field(sa_type=BigInteger)
    requests_since: int = Field(sa_type=BigInteger)
    """Requests signed before this Unix time are refused: a database that was put back does not know whose nonces were used."""


_generation: Final = SQLModel.metadata.tables["generation"]


class GenerationTable:
    """The one row of the generation as one connection sees it."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Reads may use any connection; writes need the transaction's."""
        self._connection = connection

    async def load(self) -> Generation:
        """Return the stored generation; of a database on which no node has started: zero."""
        row = (await self._connection.execute(select(_generation))).mappings().first()
        return Generation(0, 0) if row is None else Generation(int(row["number"]), int(row["requests_since"]))

    async def advance(self) -> int:
        """Add one; returns the new number. Nobody may act on it before it is durable here, and then in the file."""
        raised = update(_generation).values(number=_generation.c.number + 1).returning(_generation.c.number)
        found = (await self._connection.execute(raised)).scalar_one_or_none()
        if found is not None:
            return int(found)
        await self.save(Generation(1, 0))
        return 1

    async def save(self, generation: Generation) -> None:
        """Replace the stored generation."""
        values = {"number": generation.number, "requests_since": generation.requests_since}
        changed = await self._connection.execute(update(_generation).values(**values))
        if changed.rowcount == 0:
            await self._connection.execute(insert(_generation).values(id=1, **values))
