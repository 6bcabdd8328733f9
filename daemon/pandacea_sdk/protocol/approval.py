"""Approvals that anyone may bring to the contract: the Earner's or operator's EIP-712 signature over a lease's id.

    Approval(bytes32 leaseId,uint256 deadline)

under the domain of the LeaseAgreement contract (`receipt.domain_separator`), as the calldata of `approveLeaseBySignature`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pandacea_sdk.protocol.hashing import Signer, abi_word, keccak256, recover_address
from pandacea_sdk.protocol.receipt import domain_separator

APPROVAL_TYPE: Final = "Approval(bytes32 leaseId,uint256 deadline)"
NO_DEADLINE: Final = 2**256 - 1
"""The second until which an approval counts that the contract's own periods alone shall end."""

_APPROVAL_TYPEHASH: Final = keccak256(APPROVAL_TYPE.encode())
_SELECTOR: Final = keccak256(b"approveLeaseBySignature(bytes32,uint256,bytes)")[:4]
_SIGNATURE_BYTES: Final = 65


@dataclass(frozen=True, slots=True)
class SignedApproval:
    """An approval and its signature. `lease_id`: 0x and 64 hex digits in lower case; `deadline`: Unix seconds."""

    chain_id: int
    contract: str
    lease_id: str
    deadline: int
    signature: bytes

    @property
    def signer(self) -> str | None:
        """The address whose key signed it, lower-case hex; None: no key did (a contract wallet's signature is not one key's)."""
        if len(self.signature) != _SIGNATURE_BYTES:
            return None
        return recover_address(digest_approval(self.chain_id, self.contract, self.lease_id, self.deadline), self.signature)

    def encode_call(self) -> bytes:
        """The calldata that brings it to the contract."""
        padded = self.signature.ljust(-(-len(self.signature) // 32) * 32, b"\0")
        head = abi_word(self.lease_id) + abi_word(self.deadline) + abi_word(3 * 32) + abi_word(len(self.signature))
        return _SELECTOR + head + padded


def digest_approval(chain_id: int, contract: str, lease_id: str, deadline: int) -> bytes:
    """The 32 bytes to sign (EIP-712, section "Specification of the eth_signTypedData")."""
    struct = keccak256(_APPROVAL_TYPEHASH + abi_word(lease_id) + abi_word(deadline))
    return keccak256(b"\x19\x01" + domain_separator(chain_id, contract) + struct)


def sign_approval(signer: Signer, chain_id: int, contract: str, lease_id: str, deadline: int = NO_DEADLINE) -> SignedApproval:
    """Sign an approval with a key; whoever brings it to the contract pays the gas."""
    signature = signer.sign_digest(digest_approval(chain_id, contract, lease_id, deadline))
    return SignedApproval(chain_id, contract, lease_id, deadline, signature)


def parse_approval_call(data: bytes, chain_id: int, contract: str) -> SignedApproval | None:
    """Read the calldata of `approveLeaseBySignature`; None: it is another call, or not exactly what `encode_call` writes."""
    if data[:4] != _SELECTOR or len(data) < 4 + 4 * 32:
        return None
    size = int.from_bytes(data[4 + 3 * 32 : 4 + 4 * 32], "big")
    if size > len(data):
        return None
    approval = SignedApproval(
        chain_id,
        contract,
        "0x" + data[4:36].hex(),
        int.from_bytes(data[36:68], "big"),
        data[4 + 4 * 32 : 4 + 4 * 32 + size],
    )
    return approval if approval.encode_call() == data else None
