"""The leases as of the block at which approvals count: what no reorganisation is expected to undo."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pandacea.chain.contract_versions import ContractVersion
from pandacea.chain.follower import Follower
from pandacea.domain.ids import LeaseId
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Unavailable
from pandacea.flows.following.follow import fold_events


class FollowedLeases:
    """Reads the follower's rows up to the confident block. Implements `flows.ports.FinalizedLeases`."""

    def __init__(self, follower: Follower) -> None:
        """`follower`: whose view and rows are read; it may not have started yet."""
        self._follower = follower

    def confident_block(self) -> int:
        """Return the number of the newest block that counts as final; -1: none yet, or an endpoint contradicts what was final."""
        cache = self._follower.lease_cache
        if cache.contradictions or cache.chain_view is None:
            return -1
        return max(cache.chain_status().confident_block, cache.chain_view.base.number)

    def takes_results(self) -> bool:
        """Return whether the contract has a place for results; the first version has none.

        Raises:
            Unavailable: the contract was not looked at yet.
        """
        if self._follower.contract_version is None:
            raise Unavailable("No endpoint has shown the contract yet.")
        return self._follower.contract_version is not ContractVersion.V0

    async def list_payable(self) -> list[LeaseId]:
        """List leases that were not closed when they were settled, have a price, and have a committed result."""
        store = self._follower.chain_store
        return [] if store is None else await store.list_payable()

    async def load_leases(self, ids: Sequence[LeaseId]) -> tuple[Mapping[LeaseId, LeaseRecord], int]:
        """Return the leases as of that block, and its timestamp (Unix seconds; 0: none yet).

        Raises:
            Unavailable: the database does not answer, or nothing was read yet.
        """
        store, view = self._follower.chain_store, self._follower.lease_cache.chain_view
        block = self.confident_block()
        if store is None or view is None:
            raise Unavailable("The node has not read the chain yet.")
        settled, events = await store.load_rows_and_events(ids)
        at = view.block_at(block)
        return fold_events(settled, [seen for seen in events if seen.block <= block], store, 0), 0 if at is None else at.timestamp
