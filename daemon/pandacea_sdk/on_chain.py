"""Check a result against the chain: its signer must be the lease's Earner or operator, and a committed hash must be its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pandacea_sdk.errors import NodeUnavailable, UntrustedResult
from pandacea_sdk.protocol.verify import VerifiedResult


async def check_on_chain(
    verified: VerifiedResult, answer: Mapping[str, Any], rpc_url: str, contract: str, chain_id: int
) -> str | None:
    """Compare a verified result with the contract; returns the committed hash, or None while nothing is committed.

    The Earner is taken from the chain, never from the answer.

    Raises:
        UntrustedResult: `not-on-chain`: the signer is neither the lease's Earner nor its operator, the lease is another
            Spender's, or another result was committed for the computation.
        NodeUnavailable: the RPC endpoint cannot be asked.
    """
    from pandacea_sdk.chain import ChainError, ContractReverted, LeaseChain

    manifest, receipt = verified.manifest, answer["receipt"]
    lease_id = str(manifest["lease_id"])
    hashes = [receipt[name] for name in ("lease_id", "computation_id", "request_hash", "product_version", "result_hash")]
    try:
        async with LeaseChain(rpc_url, contract, any_code=True) as chain:
            if chain.chain_id != chain_id:
                raise _contradicted(f"the endpoint serves chain {chain.chain_id}, the receipt is for chain {chain_id}")
            lease = await chain.lease(lease_id)
            if lease.spender.lower() != manifest["spender"] or lease.earner.lower() != manifest["earner"]:
                raise _contradicted("the lease has another Spender or Earner than the manifest says")
            if not await chain.verify_receipt(hashes, receipt["signature"]):
                raise _contradicted(f"the receipt's signer {verified.signer} is neither the lease's Earner nor its operator")
            committed = await chain.committed_result(lease_id, verified.computation_id)
    except ContractReverted as error:
        raise _contradicted(str(error)) from error
    except ChainError as error:
        raise NodeUnavailable("unavailable", f"The chain cannot be asked about this result: {error}") from error
    if committed is not None and committed != verified.result_hash:
        raise _contradicted(
            f"the result committed for this computation is {committed}; this proves equivocation, keep both receipts"
        )
    return committed


def _contradicted(why: str) -> UntrustedResult:
    return UntrustedResult("not-on-chain", f"The chain contradicts the answer: {why}.")
