"""The first version of the contract ("v0"): told apart by the functions it lacks, and read as far as the SDK needs it."""

from __future__ import annotations

from pandacea_sdk.chain.errors import ContractReverted
from pandacea_sdk.chain.lease_chain import LeaseChain
from pandacea_sdk.protocol.contract import lease_agreement_v0

_NOBODY = "0x" + "00" * 20
_NO_LEASE = "0x" + "00" * 32


async def is_first_version(chain: LeaseChain) -> bool:
    """Tell whether the contract is v0: `operatorOf` and `nonceOf` are not there, and `leaseExists` is.

    Raises:
        ContractReverted: it is neither version.
        ChainError: the endpoint cannot be asked.
    """
    for function in ("operatorOf", "nonceOf"):
        try:
            await chain.view(function, _NOBODY)
        except ContractReverted as absent:
            if absent.revert.values != {"data": "0x"}:
                raise
        else:
            return False
    await chain.view("leaseExists", _NO_LEASE, abi=lease_agreement_v0())
    return True


async def fetch_parties(chain: LeaseChain, lease_id: str) -> tuple[str, str]:
    """Fetch Spender and Earner of a lease of a v0 contract, in lower case; both are zero where there is no lease."""
    head = await chain.view("getLease", lease_id, abi=lease_agreement_v0())
    return head["spender"], head["earner"]
