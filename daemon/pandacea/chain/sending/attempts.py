"""One signed attempt: how it is signed, whether it was mined, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_messages import TransactionReceipt, parse_data
from pandacea.chain.sending.calldata import calldata_of
from pandacea.chain.sending.fees import FeeQuote, parse_wei
from pandacea.domain.ids import Address, Hash32
from pandacea.flows.following.chain_store import SentTransaction
from pandacea_sdk.protocol.contract import lease_agreement
from pandacea_sdk.protocol.json_types import JsonObject

log = structlog.get_logger(__name__)

FILL: Final = "fill:"
"""How the purpose of a transaction begins that only uses a nonce."""
_RECEIPT: Final = "eth_getTransactionReceipt"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A transaction to sign."""

    chain_id: int
    purpose: str
    to: Address
    data: bytes
    nonce: int
    number: int
    """Of the attempt with this nonce, from 0."""
    gas: int
    quote: FeeQuote

    @property
    def cost(self) -> int:
        """Wei that it costs at most."""
        return self.gas * self.quote.max_fee

    @staticmethod
    def data_of(row: SentTransaction) -> bytes:
        """Return the calldata of an attempt as it was signed."""
        return calldata_of(row.raw)


class MinedAttempt(NamedTuple):
    """An attempt that an endpoint shows in a block."""

    row: SentTransaction
    block: int
    receipt: TransactionReceipt


def sign_attempt(attempt: Attempt, account: LocalAccount, sender: Address, now: float) -> SentTransaction:
    """Sign an attempt: of type 2, or of type 0 where the chain has no EIP-1559. Nothing is stored or sent."""
    fields: JsonObject = {
        "chainId": attempt.chain_id,
        "nonce": attempt.nonce,
        "to": to_checksum_address(attempt.to),
        "value": 0,
        "data": attempt.data,
        "gas": attempt.gas,
    }
    if attempt.quote.dynamic:
        fields |= {"type": 2, "maxFeePerGas": attempt.quote.max_fee, "maxPriorityFeePerGas": attempt.quote.tip}
    else:
        fields |= {"gasPrice": attempt.quote.max_fee}
    signed = account.sign_transaction(fields)
    return SentTransaction(
        chain_id=attempt.chain_id,
        sender=sender,
        nonce=attempt.nonce,
        attempt=attempt.number,
        purpose=attempt.purpose,
        tx_hash=Hash32("0x" + bytes(signed.hash).hex()),
        raw="0x" + bytes(signed.raw_transaction).hex(),
        max_cost=attempt.cost,
        max_fee=attempt.quote.max_fee,
        priority_fee=attempt.quote.tip,
        at=now,
        state="signed",
    )


async def find_mined(endpoint: Endpoint, attempts: Sequence[SentTransaction]) -> MinedAttempt | None:
    """Return which attempt with one nonce is in a block; None: none of them."""
    for row in reversed(attempts):
        receipt = await endpoint.call_nullable(_RECEIPT, [row.tx_hash], TransactionReceipt)
        if receipt is not None and receipt.block_number:
            return MinedAttempt(row, endpoint.parse_number(receipt.block_number, _RECEIPT), receipt)
    return None


def cost_of(endpoint: Endpoint, receipt: TransactionReceipt) -> int | None:
    """Return what a mined transaction cost in wei, the parent chain's fee included; None: the endpoint does not tell."""
    if receipt.gas_used is None or receipt.effective_gas_price is None:
        return None
    used, price = (parse_wei(endpoint, text, _RECEIPT) for text in (receipt.gas_used, receipt.effective_gas_price))
    return used * price + (0 if receipt.l1_fee is None else parse_wei(endpoint, receipt.l1_fee, _RECEIPT))


def log_outcome(endpoint: Endpoint, mined: MinedAttempt) -> None:
    """Log what a mined transaction did; each commitment that a batch left out is named with the contract's reason."""
    row, block, receipt = mined
    if endpoint.parse_number(receipt.status, _RECEIPT) == 0:
        log.warning("sender.reverted", purpose=row.purpose, transaction=row.tx_hash, block=block)
        return
    log.info("sender.mined", purpose=row.purpose, transaction=row.tx_hash, block=block)
    agreement = lease_agreement()
    refused_topic = agreement.event_topic("CommitmentRefused")
    for entry in receipt.logs:
        if not entry.topics or entry.topics[0].lower() != refused_topic:
            continue
        try:
            found = agreement.decode_event([parse_data(topic) for topic in entry.topics], parse_data(entry.data))
        except ValueError:
            continue
        if found is not None:
            reason = agreement.decode_revert(bytes.fromhex(found.values["reason"][2:])).name
            named = {
                error: agreement.error_selector(error) for error in ("WrongStatus", "TooLate", "AllCommitted", "AlreadyCommitted")
            }
            reason = next((error for error, selector in named.items() if selector == found.values["reason"]), reason)
            log.warning(
                "sender.commitment_refused",
                lease_id=found.values["leaseId"],
                computation_id=found.values["computationId"],
                reason=reason,
                transaction=row.tx_hash,
            )
