"""Which LeaseAgreement is followed on which chain, for which Earner, and from where on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Index, Integer
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import Field, SQLModel

from pandacea.domain.chain_view import BlockRef
from pandacea.domain.ids import Address


class DeploymentRow(SQLModel, table=True):
    """One LeaseAgreement on one chain, followed for one Earner, and everything up to `base` settled."""

    __tablename__ = "deployment"
    __table_args__ = (Index("deployment_place", "chain_id", "contract", unique=True),)

    id: int | None = Field(default=None, sa_column=Column(Integer, primary_key=True, autoincrement=True))
    chain_id: int = Field(sa_column=Column(BigInteger, nullable=False))
    contract: str = Field(max_length=42)
    earner: str = Field(max_length=42)
    """Whose leases are kept; another Earner means reading the chain again."""
    interface: str = Field(max_length=8)
    deploy_block: int = Field(sa_column=Column(BigInteger, nullable=False))
    base_number: int = Field(sa_column=Column(BigInteger, nullable=False))
    base_hash: str = Field(max_length=66)
    base_parent: str = Field(max_length=66)
    base_timestamp: int = Field(sa_column=Column(BigInteger, nullable=False))
    safe_number: int = Field(sa_column=Column(BigInteger, nullable=False))
    finalized_number: int = Field(sa_column=Column(BigInteger, nullable=False))
    scanned_number: int = Field(default=-1, sa_column=Column(BigInteger, nullable=False, server_default="-1"))
    """Last block of the range that the slow scan read last."""

    @property
    def key(self) -> int:
        """The id of a row that was read."""
        assert self.id is not None
        return self.id


_deployment: Final = SQLModel.metadata.tables["deployment"]


@dataclass(slots=True)
class DeploymentScope:
    """The deployment whose rows a table reads and writes."""

    chain_id: int
    contract: Address
    id: int = -1
    """Primary key of its row; -1 until that is found or made."""
    may_have_proofs: bool = True
    """False only while a first reading has certainly stored no proof that could be looked up."""


class DeploymentTable:
    """The deployments as one connection sees them."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Reads may use any connection; writes need the transaction's."""
        self._connection = connection

    async def find_deployment(self, chain_id: int, contract: Address) -> DeploymentRow | None:
        """Return the row of a contract on a chain, or None before it was first followed."""
        query = _deployment.select().where((_deployment.c.chain_id == chain_id) & (_deployment.c.contract == contract))
        row = (await self._connection.execute(query)).mappings().first()
        return None if row is None else DeploymentRow(**row)

    async def list_chain_ids(self, contract: Address) -> list[int]:
        """List the chains on which a contract of this address was followed."""
        query = _deployment.select().where(_deployment.c.contract == contract).order_by(_deployment.c.chain_id)
        return [row.chain_id for row in (await self._connection.execute(query)).all()]

    async def insert_deployment(
        self, scope: DeploymentScope, *, earner: Address, interface: str, deploy_block: int, base: BlockRef
    ) -> int:
        """Insert the row of a contract that is followed from now on; returns its id."""
        values = {
            "chain_id": scope.chain_id,
            "contract": scope.contract,
            "earner": earner,
            "interface": interface,
            "deploy_block": deploy_block,
            "base_number": base.number,
            "base_hash": base.hash,
            "base_parent": base.parent,
            "base_timestamp": base.timestamp,
            "safe_number": -1,
            "finalized_number": -1,
        }
        result = await self._connection.execute(_deployment.insert().values(values))
        key: Any = result.inserted_primary_key
        return int(key[0])

    async def delete_deployment(self, deployment: int) -> None:
        """Delete a deployment whose other rows are deleted."""
        await self._connection.execute(_deployment.delete().where(_deployment.c.id == deployment))

    async def update_owner(self, deployment: int, *, earner: Address, interface: str) -> None:
        """Follow a deployment for another Earner, or through another version of the contract's interface."""
        here = _deployment.c.id == deployment
        await self._connection.execute(_deployment.update().where(here).values(earner=earner, interface=interface))
