"""How far the denials of each endpoint that is not followed were read, and what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import JSON, BigInteger, Column, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.ids import LeaseId


class CrossCheckRow(SQLModel, table=True):
    """One endpoint of one deployment."""

    __tablename__ = "cross_check"

    deployment: int = Field(primary_key=True)
    endpoint: str = Field(primary_key=True, max_length=64)
    """sha-256 of its URL, which may hold a key."""
    settled_to: int = Field(sa_column=Column(BigInteger, nullable=False))
    denials: dict[str, bool] = Field(sa_column=Column(JSON, nullable=False))
    """Lease -> whether it is denied at `settled_to`; only leases that were ever denied."""


_check: Final = SQLModel.metadata.tables["cross_check"]


async def load_cross_check(connection: AsyncConnection, deployment: int, endpoint: str) -> tuple[int, dict[LeaseId, bool]] | None:
    """Return how far an endpoint was read and what it denies; None: it was not read yet."""
    here = (_check.c.deployment == deployment) & (_check.c.endpoint == endpoint)
    row = (await connection.execute(select(_check.c.settled_to, _check.c.denials).where(here))).first()
    return None if row is None else (int(row[0]), {LeaseId(lease): bool(denied) for lease, denied in row[1].items()})


async def save_cross_check(
    connection: AsyncConnection, deployment: int, endpoint: str, settled_to: int, denials: Mapping[LeaseId, bool]
) -> None:
    """Write how far an endpoint was read and what it denies."""
    await connection.execute(delete(_check).where((_check.c.deployment == deployment) & (_check.c.endpoint == endpoint)))
    row = {"deployment": deployment, "endpoint": endpoint, "settled_to": settled_to, "denials": dict(denials)}
    await connection.execute(insert(_check).values(**row))


async def delete_cross_checks(connection: AsyncConnection, deployment: int) -> None:
    """Forget what every endpoint of a deployment showed."""
    await connection.execute(delete(_check).where(_check.c.deployment == deployment))
