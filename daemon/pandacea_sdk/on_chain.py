"""Check a result against the chain: its signer must be the lease's Earner or operator, and a committed hash must be its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pandacea_sdk.errors import NodeUnavailable, UntrustedResult
from pandacea_sdk.protocol.json_types import JsonMapping
from pandacea_sdk.protocol.verify import ChainCheck, VerifiedResult

if TYPE_CHECKING:
    from pandacea_sdk.chain import LeaseChain


async def check_on_chain(verified: VerifiedResult, answer: JsonMapping, rpc_url: str, contract: str, chain_id: int) -> ChainCheck:
    """Compare a verified result with the contract, as far as its version allows; returns what was compared.

    The Earner is taken from the chain, never from the answer.

    Raises:
        UntrustedResult: `not-on-chain`: the signer is neither the lease's Earner nor its operator, the lease is another
            Spender's, or another result was committed for the computation.
        NodeUnavailable: the RPC endpoint cannot be asked.
    """
    from pandacea_sdk.chain import ChainError, ContractReverted, LeaseChain
    from pandacea_sdk.chain.first_version import is_first_version

    try:
        async with LeaseChain(rpc_url, contract, any_code=True) as chain:
            if chain.chain_id != chain_id:
                raise _contradicted(f"the endpoint serves chain {chain.chain_id}, the receipt is for chain {chain_id}")
            if await is_first_version(chain):
                return await _compare_first_version(chain, verified)
            return await _compare(chain, verified, answer["receipt"])
    except ContractReverted as error:
        raise _contradicted(str(error)) from error
    except ChainError as error:
        raise NodeUnavailable(
            "unavailable",
            f"The chain cannot be asked about this result: {error}. The result agrees with its manifest and receipt; it is this error's "
            f"`answer`, and client.result({verified.computation_id!r}) checks it again.",
        ) from error


async def _compare(chain: LeaseChain, verified: VerifiedResult, receipt: JsonMapping) -> ChainCheck:
    lease_id = str(verified.manifest["lease_id"])
    lease = await chain.lease(lease_id)
    _compare_parties(lease.spender, lease.earner, verified)
    hashes = [receipt[name] for name in ("lease_id", "computation_id", "request_hash", "product_version", "result_hash")]
    if not await chain.verify_receipt(hashes, receipt["signature"]):
        raise _contradicted(f"the receipt's signer {verified.signer} is neither the lease's Earner nor its operator")
    committed = await chain.committed_result(lease_id, verified.computation_id)
    if committed is not None and committed != verified.result_hash:
        raise _contradicted(
            f"the result committed for this computation is {committed}; this proves equivocation, keep both receipts"
        )
    return ChainCheck("v1", ("spender", "earner", "signer", "commitment"), committed)


async def _compare_first_version(chain: LeaseChain, verified: VerifiedResult) -> ChainCheck:
    """Compare with a v0 contract, which knows neither operators nor commitments: the Earner's own key is the only one it can tell."""
    from pandacea_sdk.chain.first_version import fetch_parties

    spender, earner = await fetch_parties(chain, str(verified.manifest["lease_id"]))
    _compare_parties(spender, earner, verified)
    if verified.signer.lower() != earner:
        raise _contradicted(
            f"the receipt's signer {verified.signer} is not the Earner {earner}, and this first version of the contract names no "
            "operators, so nothing ties that key to the Earner"
        )
    return ChainCheck("v0", ("spender", "earner", "signer"), None)


def _compare_parties(spender: str, earner: str, verified: VerifiedResult) -> None:
    if (spender.lower(), earner.lower()) != (verified.manifest["spender"], verified.manifest["earner"]):
        raise _contradicted("the lease has another Spender or Earner than the manifest says")


def _contradicted(why: str) -> UntrustedResult:
    return UntrustedResult("not-on-chain", f"The chain contradicts the answer: {why}.")
