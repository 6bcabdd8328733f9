"""Whether a computation's result stands on the chain, as far as the follower has read it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import SQLModel

from pandacea.domain.ids import ComputationId, LeaseKey
from pandacea.domain.lease import ResultCommitted
from pandacea.store.chain import ChainTable
from pandacea.store.deployments import DeploymentScope, DeploymentTable
from pandacea.store.leases import LeaseTable

_event: Final = SQLModel.metadata.tables["chain_event"]


class CommitmentTable:
    """The commitments of every lease, settled or not, as one connection sees them."""

    def __init__(self, connection: AsyncConnection) -> None:
        """Read through one connection."""
        self._connection = connection

    async def is_committed(self, lease: LeaseKey, computation_id: ComputationId) -> bool:
        """Return whether the chain shows a result of this computation."""
        deployment = await DeploymentTable(self._connection).find_deployment(lease.chain_id, lease.contract)
        if deployment is None:
            return False
        scope = DeploymentScope(lease.chain_id, lease.contract, deployment.key)
        settled = (await LeaseTable(self._connection, scope).load_settled([lease.lease_id])).get(lease.lease_id)
        if settled is not None and computation_id in settled.committed:
            return True
        here = (_event.c.deployment == scope.id) & (_event.c.lease_id == lease.lease_id)
        query = select(_event.c.log_index).where(here & (_event.c.kind == ResultCommitted.__name__)).limit(1)
        if (await self._connection.execute(query)).first() is None:
            return False
        events = await ChainTable(self._connection, scope).list_events([lease.lease_id])
        return any(isinstance(seen.event, ResultCommitted) and seen.event.computation_id == computation_id for seen in events)
