"""Events of any shape and in any order: see Emitter.yul, whose bytecode this is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from eth_utils.crypto import keccak

from pandacea.chain.events import event_topic
from pandacea.domain.ids import LeaseId
from tests.chain.anvil import EARNER, OWNER, PRODUCT, SPENDER, Anvil, AnvilAgreement, abi_word

BYTECODE: Final = (
    "0x60ac80600a5f395ff3fe60ff5f355f1a0360a75760015b368110601457005b806003913561ffff815f1a9160e81c1691838101908260051b810192"
    "848685015f3780600114609b5780600214608b578086146074576004146059575b50500101600c565b606381013591602360438301359201359035"
    "855fa45f806051565b5090602360438301359201359035845fa35f806051565b50602301359035835fa25f806051565b505035825fa15f806051565b60205ff3"
)

SIGNATURES: Final = {
    "LeaseCreated": "LeaseCreated(bytes32,address,address,uint256)",
    "LeaseTerms": "LeaseTerms(bytes32,bytes32,uint64,uint32)",
    "LeaseApproved": "LeaseApproved(bytes32)",
    "ResultCommitted": "ResultCommitted(bytes32,bytes32,bytes32)",
    "LeaseExecuted": "LeaseExecuted(bytes32)",
    "LeaseCancelled": "LeaseCancelled(bytes32)",
    "LeaseFinalized": "LeaseFinalized(bytes32,address,uint256)",
    "DisputeRaised": "DisputeRaised(bytes32,address,address,string,uint256)",
    "DisputeResolved": "DisputeResolved(bytes32,bool,uint256)",
}
TOPIC: Final = {name: event_topic(signature) for name, signature in SIGNATURES.items()}


def lease_number(number: int) -> LeaseId:
    """Return a lease id for tests: the hash of a number."""
    return LeaseId("0x" + keccak(number.to_bytes(32, "big")).hex())


def log(name: str, *topics: str, data: str = "") -> bytes:
    """Encode one record: an event by name (or by its topic0), its indexed arguments, and the data words in hex."""
    words = [TOPIC.get(name, name), *topics]
    body = bytes.fromhex(data)
    return bytes([len(words)]) + len(body).to_bytes(2, "big") + b"".join(bytes.fromhex(abi_word(one)) for one in words) + body


def created(lease: str, *, spender: str = SPENDER.address, earner: str = EARNER.address, price: int = 5) -> bytes:
    """Encode a LeaseCreated event."""
    return log("LeaseCreated", lease, spender, earner, data=abi_word(price))


def terms(lease: str, *, expires: int = 2_000_000_000, most: int = 3) -> bytes:
    """Encode a LeaseTerms event."""
    return log("LeaseTerms", lease, PRODUCT, data=abi_word(expires) + abi_word(most))


def simple(name: str, lease: str) -> bytes:
    """Encode a LeaseApproved, LeaseExecuted or LeaseCancelled event."""
    return log(name, lease)


def committed(lease: str, computation: str) -> bytes:
    """Encode a ResultCommitted event."""
    return log("ResultCommitted", lease, computation, data="11" * 32)


def finalized(lease: str) -> bytes:
    """Encode a LeaseFinalized event."""
    return log("LeaseFinalized", lease, EARNER.address, data=abi_word(0))


def raised(lease: str, reason: str = "wrong") -> bytes:
    """Encode a DisputeRaised event."""
    text = reason.encode()
    padded = text.hex().ljust(64 * -(-len(text) // 32), "0")
    return log(
        "DisputeRaised", lease, SPENDER.address, EARNER.address, data=abi_word(64) + abi_word(9) + abi_word(len(text)) + padded
    )


def resolved(lease: str, *, valid: bool) -> bytes:
    """Encode a DisputeResolved event."""
    return log("DisputeResolved", lease, data=abi_word(int(valid)) + abi_word(9))


@dataclass
class Emitter:
    """The emitting contract at an address."""

    agreement: AnvilAgreement

    @classmethod
    async def deploy(cls, chain: Anvil) -> Emitter:
        """Deploy the emitting contract."""
        receipt = await chain.send_transaction(OWNER, None, BYTECODE)
        return cls(AnvilAgreement(chain, receipt["contractAddress"].lower(), int(receipt["blockNumber"], 16)))

    @property
    def address(self) -> str:
        """The address of the contract."""
        return self.agreement.address

    async def emit(self, *records: bytes) -> dict[str, Any]:
        """Emit these logs in one transaction; return its receipt."""
        chain = self.agreement.chain
        raw = await self.signed(*records)
        return await chain.wait_for_receipt(await chain.call_method("eth_sendRawTransaction", raw))

    async def signed(self, *records: bytes, nonce: int | None = None) -> str:
        """Sign the transaction that emits these logs."""
        data = "0xff" + b"".join(records).hex()
        return await self.agreement.chain.sign_transaction(OWNER, self.address, data, nonce=nonce, gas=25_000_000)
