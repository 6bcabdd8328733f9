"""Recomputes the hash and recovers the signer of a mined transaction, so that an endpoint need not be trusted about it.

Sources: EIP-155 (legacy with a chain id), EIP-2930, EIP-1559, EIP-4844, EIP-7702; EIP-2 for low s.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import rlp
from eth_keys.datatypes import Signature
from eth_keys.exceptions import BadSignature
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError

from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_messages import RpcTransaction
from pandacea.domain.ids import Address, Hash32
from pandacea_sdk.protocol.hashing import HALF_ORDER
from pandacea_sdk.protocol.json_types import JsonObject


@dataclass(frozen=True, slots=True)
class RecoveredTransaction:
    """What a transaction's signature covers, with the signer."""

    hash: Hash32
    signer: Address
    chain_id: int
    to: Address | None
    data: bytes
    value: int


class UnprovableError(Exception):
    """A transaction does not prove what it should: its hash or signer cannot be recomputed, or it is another transaction."""


async def fetch_signed_transaction(endpoint: Endpoint, tx_hash: Hash32) -> RecoveredTransaction:
    """Fetch a transaction that a log names, and recover its signer.

    Raises:
        UnprovableError: as `recover_transaction`.
        RpcFault: the endpoint failed, or does not have the transaction.
    """
    answer = await endpoint.call_nullable("eth_getTransactionByHash", [tx_hash], JsonObject)
    if answer is None:
        raise endpoint.inconsistent_fault("eth_getTransactionByHash", f"has a log but not its transaction {tx_hash}")
    try:
        transaction = msgspec.convert(answer, RpcTransaction)
    except msgspec.ValidationError as error:  # a type that is not known: asking again would bring the same
        raise UnprovableError(f"it has another form than Ethereum's transactions: {error}") from error
    return recover_transaction(transaction)


def recover_transaction(transaction: RpcTransaction) -> RecoveredTransaction:
    """Recompute a transaction's hash and recover its signer.

    Raises:
        UnprovableError: a field is malformed, the type is unknown, no chain id was signed, or the signature is invalid.
    """
    if not transaction.r or not transaction.s:
        raise UnprovableError(f"it carries no signature (transaction type {transaction.type[:8]})")
    try:
        kind = int(transaction.type, 16)
        chain_id, unsigned, signature, prefix = _legacy(transaction) if kind == 0 else _typed(transaction, kind)
        r, s = int(transaction.r, 16), int(transaction.s, 16)
        parity = signature[0]
        whole = [*unsigned[: len(unsigned) - 3], *signature[1:]] if kind == 0 else [*unsigned, *signature[1:]]
        tx_hash = keccak(prefix + rlp.encode(whole))
        if not 0 < s <= HALF_ORDER:
            raise UnprovableError("s is not in the lower half (EIP-2)")
        key = Signature(vrs=(parity, r, s)).recover_public_key_from_msg_hash(keccak(prefix + rlp.encode(unsigned)))
        to = None if not transaction.to else Address(transaction.to.lower())
        return RecoveredTransaction(
            Hash32("0x" + tx_hash.hex()),
            Address(key.to_address()),
            chain_id,
            to,
            _bytes(transaction.input),
            int(transaction.value, 16),
        )
    except (ValueError, TypeError, BadSignature, ValidationError, rlp.exceptions.RLPException) as error:
        raise UnprovableError(f"{type(error).__name__}: {error}") from error


def _legacy(transaction: RpcTransaction) -> tuple[int, list[object], list[int], bytes]:
    v = int(transaction.v or "", 16)
    if v < 35:
        raise UnprovableError("it signs no chain id (before EIP-155), so it may be of any chain")
    chain_id, parity = (v - 35) // 2, (v - 35) % 2
    head = [
        int(transaction.nonce, 16),
        int(transaction.gas_price or "", 16),
        int(transaction.gas, 16),
        _bytes(transaction.to or "0x"),
        int(transaction.value, 16),
        _bytes(transaction.input),
    ]
    return chain_id, [*head, chain_id, 0, 0], [parity, v, int(transaction.r or "", 16), int(transaction.s or "", 16)], b""


def _typed(transaction: RpcTransaction, kind: int) -> tuple[int, list[object], list[int], bytes]:
    chain_id = int(transaction.chain_id or "", 16)
    access = [[_bytes(entry.address), [_bytes(key) for key in entry.storage_keys]] for entry in transaction.access_list or []]
    fees = (
        [int(transaction.gas_price or "", 16)]
        if kind == 1
        else [int(transaction.max_priority_fee_per_gas or "", 16), int(transaction.max_fee_per_gas or "", 16)]
    )
    unsigned: list[object] = [
        chain_id,
        int(transaction.nonce, 16),
        *fees,
        int(transaction.gas, 16),
        _bytes(transaction.to or "0x"),
        int(transaction.value, 16),
        _bytes(transaction.input),
        access,
    ]
    if kind == 3:
        blobs = [_bytes(blob) for blob in transaction.blob_versioned_hashes or []]
        unsigned += [int(transaction.max_fee_per_blob_gas or "", 16), blobs]
    elif kind == 4:
        unsigned.append(
            [
                [int(a.chain_id, 16), _bytes(a.address), int(a.nonce, 16), int(a.y_parity, 16), int(a.r, 16), int(a.s, 16)]
                for a in transaction.authorization_list or []
            ]
        )
    elif kind not in {1, 2}:
        raise UnprovableError(f"transaction type {kind} is not supported")
    parity = int(transaction.y_parity if transaction.y_parity is not None else transaction.v or "", 16)
    return chain_id, unsigned, [parity, parity, int(transaction.r or "", 16), int(transaction.s or "", 16)], bytes([kind])


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))
