"""Leases as the contract itself states them (`getLease` of v1): one call that no missing log can falsify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pandacea.chain.contract_versions import GET_LEASE_SELECTOR, abi_word
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import RpcFault
from pandacea.domain.access import CachedLease
from pandacea.domain.ids import Address, Hash32, LeaseId
from pandacea.domain.lease import LeaseStatus
from pandacea.domain.lease_record import STATUSES, LeaseRecord

DENIED_STATUSES: Final = frozenset({LeaseStatus.CANCELLED, LeaseStatus.DISPUTED, LeaseStatus.REFUNDED})
"""Statuses under which nothing may run or leave."""

_WORDS: Final = 19
_EARNER, _PRODUCT, _COMMITTED, _STATUS = 1, 2, 15, 18
"""Places among the words of the answer."""


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What `getLease` of a v1 contract says of a lease, as far as the node compares it."""

    earner: Address
    data_product_id: Hash32
    committed: int
    status: LeaseStatus

    def equals_cached(self, lease: CachedLease) -> bool:
        """Whether the lease cache says the same."""
        ours = (lease.data_product_id, lease.committed_count, lease.status)
        return ours == (self.data_product_id, self.committed, self.status)

    def equals_record(self, record: LeaseRecord | None) -> bool:
        """Whether the rows say the same."""
        if record is None:
            return False
        ours = (record.terms[0], len(record.committed), STATUSES[record.status])
        return ours == (self.data_product_id, self.committed, self.status)


async def fetch_lease_state(endpoint: Endpoint, contract: Address, lease_id: LeaseId) -> LeaseState | None:
    """Ask the contract for a lease at the newest block; None: it knows no such lease, or does not answer as a v1 contract does.

    Raises:
        RpcFault: the endpoint failed.
    """
    try:
        answer = await endpoint.eth_call(contract, GET_LEASE_SELECTOR + abi_word(lease_id), "latest")
    except RpcFault as fault:
        if fault.reverted:
            return None
        raise
    words = [answer[start : start + 32] for start in range(0, len(answer), 32)]
    if len(words) < _WORDS or not 1 <= (status := int.from_bytes(words[_STATUS], "big")) <= len(STATUSES):
        return None
    return LeaseState(
        Address("0x" + words[_EARNER][12:].hex()),
        Hash32("0x" + words[_PRODUCT].hex()),
        int.from_bytes(words[_COMMITTED], "big"),
        STATUSES[status - 1],
    )
