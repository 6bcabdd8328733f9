"""What keeps the node from settling: asked of the chain by `doctor`, and by the node at its start and from time to time."""

from __future__ import annotations

from typing import Final

from pandacea.chain.contract_versions import ContractVersion
from pandacea.chain.rpc import Endpoint
from pandacea.chain.sending.fees import FeeLimits, parse_wei, quote_fees
from pandacea.domain.ids import Address
from pandacea.flows.settlement.commit_results import Posting
from pandacea_sdk.protocol.contract import lease_agreement

COMMIT_GAS: Final = 100_000
"""Gas of one commitment, with a margin."""


async def find_obstacles(
    endpoint: Endpoint, contract: Address, version: ContractVersion, earner: Address, sender: Address, posting: Posting
) -> list[str]:
    """Return what keeps results from being committed and paid; each says what to do.

    Raises:
        RpcFault: the endpoint does not answer.
    """
    if version is ContractVersion.V0:
        told = "This version of the contract has no place for results: nothing is committed, and what is paid is up to the Earner."
        return [told] if sender == earner else [told, f"Its receipts need the Earner's own key, not {sender}: use its keystore."]
    found = []
    if posting is Posting.NONE:
        found.append(
            "settlement.post_results is false: nothing is committed, so every Spender may take the price back a day after the "
            "expiry. Remove the key."
        )
    if sender != earner:
        call = lease_agreement().encode_call("operatorOf", earner)
        named = "0x" + (await endpoint.eth_call(contract, "0x" + call.hex()))[-20:].hex()
        if named != sender:
            found.append(
                f"The contract names {named} as the operator of {earner}, not this node's key {sender}: nothing it sends is taken. "
                f"Let the Earner call setOperator({sender})."
            )
    if posting is not Posting.NONE:
        held = parse_wei(endpoint, await endpoint.call_method("eth_getBalance", [sender, "latest"], str), "eth_getBalance")
        quote = await quote_fees(endpoint)
        if held < COMMIT_GAS * quote.max_fee:
            found.append(
                f"{sender} has {held} wei, less than one commitment may cost now ({COMMIT_GAS * quote.max_fee} wei). Send it some."
            )
        if COMMIT_GAS * quote.max_fee > FeeLimits().max_wei_per_transaction:
            found.append(
                f"One commitment may cost {COMMIT_GAS * quote.max_fee} wei now: look at settlement.max_fee_eth_per_transaction."
            )
    return found
