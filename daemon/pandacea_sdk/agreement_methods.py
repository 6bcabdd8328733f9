"""The client's methods that come to an agreement with the Earner: a lease, and an approval of a script."""

from __future__ import annotations

from collections.abc import Sequence

from pandacea_sdk import offers
from pandacea_sdk.credentials import account_of
from pandacea_sdk.errors import usage_error
from pandacea_sdk.node import NodeConnection, parse_object
from pandacea_sdk.prepare import Inputs, encode_json, list_inputs
from pandacea_sdk.protocol.ids import HASH32
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject
from pandacea_sdk.scripts import Code, read_code
from pandacea_sdk.waiting import AsyncCodeHandle, AsyncLeaseHandle, LeaseBill, product_id_of


class AgreementMethods:
    """Methods of `AsyncPandaceaClient` about leases and approvals; they need its connection."""

    _node: NodeConnection
    _rpc_url: str | None

    async def create_lease(
        self,
        product_id: str,
        *,
        computations: int = 1,
        days: int = 7,
        max_price: int = 0,
        arbiter: str | None = None,
        max_fee: int = 10**16,
        max_tip: int | None = None,
    ) -> str:
        """Create a lease on a product at its signed price, and pay that price into the contract. Returns the lease's id.

        The client needs `rpc_url`, `contract` and a key with a balance. Earner, contract and price come from what the node signed; on
        your own endpoint chain, code, the signers, and the arbiter are checked before anything is sent. The Earner must approve the
        lease within 7 days; `lease(id)` says when it may be used.

        Args:
            product_id: as the catalogue names it.
            computations: how many the lease allows.
            days: until it expires, at most 730.
            max_price: the most wei you pay for the whole lease; a product that costs more is refused.
            arbiter: the only address that may judge a dispute; default: whoever is appointed, unless a side of the lease.
            max_fee: the most wei for the transaction's gas; the default is 0.01 of the native coin.
            max_tip: the most wei per gas on top of the base fee; default: 2 gwei, or the base fee where that is more.

        Raises:
            UsageError: the price is above `max_price`, or an argument cannot be used.
            RequestError: `product-unknown`.
            UntrustedResult: the offer contradicts itself, its signature or the chain. In all of these nothing was paid.
            LeaseError: the contract refused it.
            NodeUnavailable: node or endpoint do not answer.
            chain.FeeAboveCap, chain.NotMined: see there.
        """
        if self._rpc_url is None:
            raise usage_error("create_lease needs your own endpoint and the contract: PandaceaClient(..., rpc_url=, contract=).")
        lease_id, _ = await offers.create_lease(
            self._node,
            self._rpc_url,
            account_of(self._node.signer),
            product_id,
            computations=computations,
            days=days,
            max_price=max_price,
            arbiter=arbiter,
            max_fee=max_fee,
            max_tip=max_tip,
        )
        return lease_id

    async def request_lease(
        self,
        product: str | JsonMapping,
        *,
        computations: int = 1,
        days: int = 7,
        max_price: int = 0,
        arbiter: str | None = None,
        max_fee: int = 10**16,
        max_tip: int | None = None,
    ) -> AsyncLeaseHandle:
        """Create a lease as `create_lease` does and return a handle on it, which has the bill and waits for the approval.

        Args:
            product: an id, or what `product` returned; whatever that says, price and Earner are asked of the node again and verified.
            computations: how many the lease allows.
            days: until it expires, at most 730.
            max_price: the most wei you pay for the whole lease.
            arbiter: as in `create_lease`.
            max_fee: the most wei for the transaction's gas.
            max_tip: as in `create_lease`.

        Raises:
            PandaceaError: as `create_lease`; nothing was paid.
        """
        product_id = product_id_of(product)
        if self._rpc_url is None:
            raise usage_error("request_lease needs your own endpoint and the contract: PandaceaClient(..., rpc_url=, contract=).")
        lease_id, offer = await offers.create_lease(
            self._node,
            self._rpc_url,
            account_of(self._node.signer),
            product_id,
            computations=computations,
            days=days,
            max_price=max_price,
            arbiter=arbiter,
            max_fee=max_fee,
            max_tip=max_tip,
        )
        bill = LeaseBill(product_id, offer.version, offer.earner, offer.contract, offer.price, max_fee, computations, days)
        return AsyncLeaseHandle(self._node, lease_id, bill)

    def open_lease(self, lease_id: str) -> AsyncLeaseHandle:
        """Make a handle on a lease that was made before; nothing is sent.

        Raises:
            UsageError: it is not a lease's id.
        """
        if not HASH32.fullmatch(lease_id):
            raise usage_error(f"{lease_id!a} is not a lease id: 0x and 64 lower-case hex digits.")
        return AsyncLeaseHandle(self._node, lease_id, None)

    async def submit_code(
        self,
        code: Code,
        product: str | JsonMapping,
        inputs: Inputs,
        *,
        uploads: Sequence[str] = (),
        params_schema: JsonMapping | None = None,
        note: str = "",
    ) -> AsyncCodeHandle:
        """Submit a script for the Earner's approval, before paying for a lease. Needs a key, not a lease.

        Args:
            code: as in `submit`; the text that `source` returns is approved, and runs only unchanged.
            product: the product whose assets the script reads, as an id or as `product` returned it.
            inputs: as in `execute_computation`; the approval covers this mapping of assets to variables.
            uploads: names of the uploads that requests with this script will have.
            params_schema: a JSON schema of its `params`; default: `params` must be empty.
            note: text for the Earner.

        Returns:
            A handle: `wait_approved(hours=2)`; `code_state(handle.id)` fetches the decision, too.
        """
        body: JsonObject = {
            "product_id": product_id_of(product),
            "code": read_code(code, inputs).text,
            "inputs": list_inputs(inputs),
        }
        optional = {"uploads": list(uploads), "params_schema": params_schema, "note": note}
        body |= {name: value for name, value in optional.items() if value}
        answer = parse_object(await self._node.send_signed("POST", "/api/v1/privacy/code", body=encode_json(body)))
        return AsyncCodeHandle(self._node, answer)
