"""The operator's words about leases: what one says, and that the operator approved it where the chain cannot prove so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import structlog

from pandacea.domain.ids import HASH32, LeaseId
from pandacea.domain.lease import NO_EXPIRY
from pandacea.errors import Refused
from pandacea.flows.approval_proof import ApprovalReport, acknowledge_lease, load_approval
from pandacea.flows.chain_store import ChainStore
from pandacea.flows.follow import LeaseCacheWriter
from pandacea.flows.ports import Clock
from pandacea.store.products import SqlProductStore

log = structlog.get_logger(__name__)


class LeaseControl:
    """Answers the desk's `leases` verbs. `memory`: of the running node; None: there is none to tell."""

    def __init__(
        self,
        records: Callable[[], Awaitable[ChainStore]],
        products: SqlProductStore,
        clock: Clock,
        memory: LeaseCacheWriter | None = None,
    ) -> None:
        """`records`: the rows of the contract, once they can be told; raises Unavailable."""
        self._records, self._products, self._clock, self._memory = records, products, clock, memory

    async def describe_lease(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """The terms of one approved lease, and what its approval is worth. Raises Refused, Unavailable."""
        return await self._described(await load_approval(_id(asked), await self._records()))

    async def acknowledge_lease(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Vouch for the approval of the lease whose terms were shown. Raises Refused, Unavailable."""
        terms, by, at = str(asked["terms"]), str(asked["by"]), int(self._clock.now())
        found = await acknowledge_lease(_id(asked), terms, by, at, await self._records(), self._memory)
        log.info("lease.acknowledged", lease_id=found.lease.key.lease_id, terms=terms, by=by)
        return await self._described(found)

    async def _described(self, found: ApprovalReport) -> dict[str, Any]:
        lease = found.lease
        product = lease.data_product_id
        return {
            "lease_id": lease.key.lease_id,
            "status": lease.status.value,
            "spender": lease.spender,
            "product_id": None if product is None else await self._products.find_offered_id(product),
            "data_product_id": product,
            "price_wei": str(lease.price),
            "expires_at": None if lease.expires_at is None or lease.expires_at >= NO_EXPIRY else lease.expires_at,
            "max_computations": lease.max_computations,
            "approved_block": lease.approved_block,
            "approved_tx": found.approved_tx,
            "approval": found.proof_status.value,
            "by": found.attested_by,
            "terms": found.terms_digest,
        }


def _id(asked: Mapping[str, Any]) -> LeaseId:
    text = str(asked["id"])
    if not HASH32.fullmatch(text.lower()):
        raise Refused(f"{text[:80]!r} is no lease id; `pandacea leases` shows them: 0x and 64 hex digits.")
    return LeaseId(text.lower())
