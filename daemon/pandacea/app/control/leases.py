"""Control verbs about leases: show the terms of one, acknowledge an approval that the chain cannot prove, read leases again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import structlog

from pandacea.api.lease_members import lease_members
from pandacea.app.control.ids import expand_id
from pandacea.chain.rereading.lease_rereader import LeaseDifference
from pandacea.domain.access import CachedLease
from pandacea.domain.ids import HASH32, LeaseId
from pandacea.domain.lease_record import LeaseRecord
from pandacea.errors import Refused, Unavailable
from pandacea.flows.following.approval_proof import ApprovalReport, acknowledge_lease, load_approval
from pandacea.flows.following.chain_store import ChainStore
from pandacea.flows.following.follow import LeaseCacheWriter
from pandacea.flows.ports import Clock, ResultPoster
from pandacea.store.products import SqlProductStore
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject

Reread = Callable[[LeaseId | None], Awaitable[Sequence[LeaseDifference]]]
"""Reads one lease, or all (None), again; returns what changed."""

log = structlog.get_logger(__name__)


class LeaseControl:
    """Carries out the control socket's `leases` verbs."""

    def __init__(
        self,
        open_store: Callable[[], Awaitable[ChainStore]],
        products: SqlProductStore,
        clock: Clock,
        cache: LeaseCacheWriter | None = None,
        reread: Reread | None = None,
        list_contested: Callable[[], Collection[LeaseId]] = tuple,
        sender: ResultPoster | None = None,
        *,
        own_key: bool = True,
    ) -> None:
        """`open_store` returns the contract's rows, or raises Unavailable.

        `cache`, `reread` and `sender` are the running node's; None where no node runs.

        `own_key`: whether the node's key is the Earner's own, not its operator's.

        `list_contested`: the leases that an endpoint of the running node shows as denied while the followed one does not.
        """
        self._list_contested, self._sender = list_contested, sender
        self._open_store, self._products, self._clock, self._cache = open_store, products, clock, cache
        self._reread, self._own_key = reread, own_key

    async def describe_lease(self, arguments: JsonMapping) -> JsonObject:
        """Return the terms of an approved lease, and why its approval counts or does not.

        Raises:
            Refused: the lease is not known here, or nobody approved it.
            Unavailable: the database cannot be asked.
        """
        return await self._row(await load_approval(_lease_id(arguments), await self._open_store()))

    async def describe_contested(self, _arguments: JsonMapping) -> JsonObject:
        """Return the leases that the running node refuses for what only its memory holds: it is not in the database."""
        return {"contested": sorted(self._list_contested())}

    async def acknowledge_lease(self, arguments: JsonMapping) -> JsonObject:
        """Acknowledge the approval of a lease whose terms were shown.

        Raises:
            Refused: as `flows.following.approval_proof.acknowledge_lease`.
            Unavailable: the database cannot be asked.
        """
        terms, attested_by, at = str(arguments["terms"]), str(arguments["by"]), int(self._clock.now())
        store = await self._open_store()
        approved = await acknowledge_lease(_lease_id(arguments), terms, attested_by, at, store, self._cache)
        log.info("lease.acknowledged", lease_id=approved.lease.key.lease_id, terms=terms, by=attested_by)
        return await self._row(approved)

    async def reread_leases(self, arguments: JsonMapping) -> JsonObject:
        """Read the lease `id`, or without one every lease, again from the chain; return what changed.

        Raises:
            Refused: no node runs, or the id is none.
            Unavailable: no endpoint answers now, or the node has not caught up.
        """
        lease_id = _lease_id(arguments) if arguments.get("id") is not None else None
        if self._reread is None:
            raise Refused("Only a running node asks the chain. Start it (`pandacea run`) and ask again.")
        changed = await self._reread(lease_id)
        log.info("lease.reread", lease_id=lease_id, changed=len(changed))
        return {
            "changed": [
                {"lease_id": one.lease_id, "before": _state_members(one.before), "after": _state_members(one.after)}
                for one in changed
            ]
        }

    async def approve_lease(self, arguments: JsonMapping) -> JsonObject:
        """Approve a lease that waits; its id may be shortened.

        Raises:
            Refused: no such lease waits, no node runs, or the contract does not take it; the reason.
        """
        return await self._send("approveLease", arguments)

    async def cancel_lease(self, arguments: JsonMapping) -> JsonObject:
        """Refuse a lease that waits, or cancel an approved one: its Spender has the whole price back. Only the Earner's own key may.

        Raises:
            Refused: no such lease is open, no node runs, or the contract does not take it; the reason.
        """
        return await self._send("cancelLease", arguments)

    async def _send(self, call: str, arguments: JsonMapping) -> JsonObject:
        if self._sender is None:
            raise Refused("No node runs here, and only a running node sends transactions. Start it: pandacea run")
        if call == "cancelLease" and not self._own_key:
            raise Refused(
                "The contract gives a price back on the word of the Earner's own key only, and this node works with its operator's; "
                "nothing was sent. Name the key: pandacea leases cancel LEASE_ID --keystore FILE"
            )
        store = await self._open_store()
        known: list[LeaseId] = await store.list_waiting()
        if call == "cancelLease":
            async for page in store.load_approved():
                known += [row.lease_id for row in page]
        lease_id = _lease_id({"id": expand_id(str(arguments["id"]), sorted(set(known)))})
        if lease_id not in known:
            raise Refused(f"No lease {lease_id} of this Earner waits here; `pandacea leases` shows them.")
        try:
            await self._sender.call_lease(call, lease_id)
        except Unavailable as error:
            named = " Let the Earner name this node's key: setOperator." if "NotEarnerOrOperator" in error.detail else ""
            raise Refused(error.detail + named) from error
        log.info("lease.sent", call=call, lease_id=lease_id)
        return {"lease_id": lease_id, "sent": call}

    async def _row(self, approved: ApprovalReport) -> JsonObject:
        lease, product = approved.lease, approved.lease.data_product_id
        return {
            **lease_members(CachedLease.from_lease(lease, approved.proof_status)),
            "spender": lease.spender,
            "product_id": None if product is None else await self._products.find_offered_id(product),
            "price_wei": str(lease.price),
            "approved_tx": approved.approved_tx,
            "by": approved.attested_by,
            "terms": approved.terms_digest,
        }


def _state_members(record: LeaseRecord | None) -> JsonObject | None:
    if record is None:
        return None
    lease = record.lease
    return {
        "status": lease.status.value,
        "approved_block": lease.approved_block,
        "data_product_id": lease.data_product_id,
        "expires_at": lease.expires_at,
        "committed": len(lease.committed),
    }


def _lease_id(arguments: JsonMapping) -> LeaseId:
    text = str(arguments["id"])
    if not HASH32.fullmatch(text.lower()):
        raise Refused(f"{text[:80]!r} is not a lease id; `pandacea leases` shows them: 0x and 64 hex digits.")
    return LeaseId(text.lower())
