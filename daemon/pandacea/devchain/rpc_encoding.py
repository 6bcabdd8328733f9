"""Encodes the chain's objects for JSON-RPC: quantities and data in hex, by the Ethereum execution API."""

from __future__ import annotations

from typing import Any

from pandacea.devchain.model import IncludedTransaction, MinedBlock, MinedLog
from pandacea_sdk.protocol.json_types import JsonObject

_LEGACY, _ACCESS_LIST = 0, 1


def encode_quantity(value: int) -> str:
    """Encode a number: `0x` and hex digits without leading zeros."""
    return hex(value)


def encode_data(value: bytes) -> str:
    """Encode bytes: `0x` and two hex digits for each."""
    return "0x" + bytes(value).hex()


def encode_word(value: int) -> str:
    """Encode a number as 32 bytes."""
    return encode_data(value.to_bytes(32, "big"))


def encode_bloom(value: int) -> str:
    """Encode a bloom filter as 256 bytes."""
    return encode_data(value.to_bytes(256, "big"))


def encode_block(found: MinedBlock, *, full: bool) -> JsonObject:
    """Encode a block; `full`: with whole transactions instead of their hashes."""
    header = found.header
    return {
        "number": encode_quantity(header.block_number),
        "hash": encode_data(found.hash),
        "parentHash": encode_data(header.parent_hash),
        "nonce": encode_data(header.nonce),
        "sha3Uncles": encode_data(header.uncles_hash),
        "logsBloom": encode_bloom(header.bloom),
        "transactionsRoot": encode_data(header.transaction_root),
        "stateRoot": encode_data(header.state_root),
        "receiptsRoot": encode_data(header.receipt_root),
        "miner": encode_data(header.coinbase),
        "difficulty": encode_quantity(header.difficulty),
        "extraData": encode_data(header.extra_data),
        "size": encode_quantity(found.size),
        "gasLimit": encode_quantity(header.gas_limit),
        "gasUsed": encode_quantity(header.gas_used),
        "timestamp": encode_quantity(header.timestamp),
        "baseFeePerGas": encode_quantity(header.base_fee_per_gas),
        "mixHash": encode_data(header.mix_hash),
        "withdrawalsRoot": encode_data(header.withdrawals_root),
        "blobGasUsed": encode_quantity(header.blob_gas_used),
        "excessBlobGas": encode_quantity(header.excess_blob_gas),
        "parentBeaconBlockRoot": encode_data(header.parent_beacon_block_root),
        "requestsHash": encode_data(header.requests_hash),
        "withdrawals": [],
        "uncles": [],
        "transactions": [encode_transaction(mined, found) if full else encode_data(mined.hash) for mined in found.transactions],
    }


def encode_transaction(mined: IncludedTransaction, found: MinedBlock) -> JsonObject:
    """Encode a transaction with every signed field, so that a reader can recompute its hash and sender."""
    signed = mined.transaction
    kind = _kind(signed)
    shown: JsonObject = {
        "type": encode_quantity(kind),
        "hash": encode_data(mined.hash),
        "nonce": encode_quantity(signed.nonce),
        "blockHash": encode_data(found.hash),
        "blockNumber": encode_quantity(mined.block_number),
        "transactionIndex": encode_quantity(mined.index),
        "from": encode_data(mined.sender),
        "to": encode_data(signed.to) if signed.to else None,
        "value": encode_quantity(signed.value),
        "gas": encode_quantity(signed.gas),
        "gasPrice": encode_quantity(_gas_price(signed, kind, found)),
        "input": encode_data(signed.data),
        "r": encode_quantity(signed.r),
        "s": encode_quantity(signed.s),
    }
    if kind == _LEGACY:
        return {**shown, "v": encode_quantity(signed.v)}
    shown |= {
        "chainId": encode_quantity(signed.chain_id),
        "accessList": [
            {"address": encode_data(address), "storageKeys": [encode_word(key) for key in keys]}
            for address, keys in signed.access_list or ()
        ],
        "v": encode_quantity(signed.y_parity),
        "yParity": encode_quantity(signed.y_parity),
    }
    if kind == _ACCESS_LIST:
        return shown
    return {
        **shown,
        "maxFeePerGas": encode_quantity(signed.max_fee_per_gas),
        "maxPriorityFeePerGas": encode_quantity(signed.max_priority_fee_per_gas),
    }


def encode_receipt(mined: IncludedTransaction, found: MinedBlock) -> JsonObject:
    """Encode a transaction's receipt."""
    kind = _kind(mined.transaction)
    return {
        "type": encode_quantity(kind),
        "transactionHash": encode_data(mined.hash),
        "transactionIndex": encode_quantity(mined.index),
        "blockHash": encode_data(found.hash),
        "blockNumber": encode_quantity(mined.block_number),
        "from": encode_data(mined.sender),
        "to": encode_data(mined.transaction.to) if mined.transaction.to else None,
        "contractAddress": None if mined.created is None else encode_data(mined.created),
        "status": encode_quantity(int(mined.succeeded)),
        "gasUsed": encode_quantity(mined.gas_used),
        "cumulativeGasUsed": encode_quantity(mined.cumulative_gas_used),
        "effectiveGasPrice": encode_quantity(_gas_price(mined.transaction, kind, found)),
        "logsBloom": encode_bloom(mined.bloom),
        "logs": [encode_log(log) for log in mined.logs],
    }


def encode_log(log: MinedLog) -> JsonObject:
    """Encode a log with its position."""
    return {
        "address": encode_data(log.address),
        "topics": [encode_data(topic) for topic in log.topics],
        "data": encode_data(log.data),
        "blockNumber": encode_quantity(log.block_number),
        "blockHash": encode_data(log.block_hash),
        "transactionHash": encode_data(log.transaction_hash),
        "transactionIndex": encode_quantity(log.transaction_index),
        "logIndex": encode_quantity(log.index),
        "removed": False,
    }


def _kind(signed: object) -> int:
    return getattr(signed, "type_id", None) or _LEGACY  # a legacy transaction has the attribute, with None


def _gas_price(signed: Any, kind: int, found: MinedBlock) -> int:
    price: int = signed.gas_price if kind <= _ACCESS_LIST else 0
    if kind > _ACCESS_LIST:
        price = min(signed.max_fee_per_gas, signed.max_priority_fee_per_gas + found.header.base_fee_per_gas)
    return price
