"""Receipts: the EIP-712 signature by which an Earner or operator vouches that a result belongs to a lease, request and product version.

    Receipt(bytes32 leaseId,bytes32 computationId,bytes32 requestHash,bytes32 productVersion,bytes32 resultHash)

under the domain (name `Pandacea LeaseAgreement`, version `1`, chainId, verifyingContract) of the LeaseAgreement contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pandacea_sdk.protocol.hashing import Signer, abi_word, hash_abi_words, keccak256, recover_address
from pandacea_sdk.protocol.ids import ADDRESS, HASH32
from pandacea_sdk.protocol.problems import ProtocolError
from pandacea_sdk.protocol.responses import ReceiptJson

DOMAIN_NAME: Final = "Pandacea LeaseAgreement"
DOMAIN_VERSION: Final = "1"
RECEIPT_TYPE: Final = "Receipt(bytes32 leaseId,bytes32 computationId,bytes32 requestHash,bytes32 productVersion,bytes32 resultHash)"

_DOMAIN_TYPEHASH: Final = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
_RECEIPT_TYPEHASH: Final = keccak256(RECEIPT_TYPE.encode())
_HASH_FIELDS: Final = ("lease_id", "computation_id", "request_hash", "product_version", "result_hash")


def derive_computation_id(chain_id: int, contract: str, lease_id: str, request_hash: str) -> str:
    """Compute a computation's id: keccak256(abi.encode(chain id, contract, lease id, request hash)). Each request has its own."""
    return hash_abi_words(chain_id, contract, lease_id, request_hash)


def domain_separator(chain_id: int, contract: str) -> bytes:
    """Compute the EIP-712 domain separator of a LeaseAgreement."""
    return keccak256(
        _DOMAIN_TYPEHASH
        + keccak256(DOMAIN_NAME.encode())
        + keccak256(DOMAIN_VERSION.encode())
        + abi_word(chain_id)
        + abi_word(contract)
    )


@dataclass(frozen=True, slots=True)
class Receipt:
    """The five hashes of a receipt, and its chain and contract. All hex is lower case."""

    chain_id: int
    contract: str
    lease_id: str
    computation_id: str
    request_hash: str
    product_version: str
    result_hash: str

    def digest(self) -> bytes:
        """Compute the 32 bytes to sign (EIP-712)."""
        struct = b"".join(abi_word(getattr(self, name)) for name in _HASH_FIELDS)
        return keccak256(b"\x19\x01" + domain_separator(self.chain_id, self.contract) + keccak256(_RECEIPT_TYPEHASH + struct))

    def sign(self, signer: Signer) -> ReceiptJson:
        """Sign the receipt and build its JSON object."""
        return {
            "chain_id": self.chain_id,
            "contract": self.contract,
            "lease_id": self.lease_id,
            "computation_id": self.computation_id,
            "request_hash": self.request_hash,
            "product_version": self.product_version,
            "result_hash": self.result_hash,
            "signer": signer.address.lower(),
            "signature": "0x" + signer.sign_digest(self.digest()).hex(),
        }


def parse_receipt(value: object) -> tuple[Receipt, str]:
    """Read and check a receipt; returns it with the address whose key signed it.

    Raises:
        ProtocolError: `bad-receipt`: a member is missing or malformed, or the signature is not the named signer's.
    """
    if not isinstance(value, Mapping):
        raise _bad("it is not an object")
    for name, shape in (*((name, HASH32) for name in _HASH_FIELDS), ("contract", ADDRESS), ("signer", ADDRESS)):
        if not isinstance(value.get(name), str) or not shape.fullmatch(value[name]):
            raise _bad(f"{name} is missing or not lower-case hex of the right length")
    chain_id = value.get("chain_id")
    if not isinstance(chain_id, int) or isinstance(chain_id, bool) or chain_id <= 0:
        raise _bad("chain_id is not a positive integer")
    receipt = Receipt(chain_id, value["contract"], *(value[name] for name in _HASH_FIELDS))
    try:
        signature = bytes.fromhex(str(value.get("signature", "")).removeprefix("0x"))
    except ValueError:
        raise _bad("the signature is not hex") from None
    signer = recover_address(receipt.digest(), signature)
    if signer is None or signer != value["signer"]:
        raise _bad("the signature was not made by the signer it names")
    return receipt, signer


def _bad(why: str) -> ProtocolError:
    return ProtocolError("bad-receipt", f"The receipt cannot be trusted: {why}. Keep the answer and ask the Earner.")
