"""How the chain's objects look in JSON-RPC: quantities and data in hex, as the Ethereum execution API states them."""

from __future__ import annotations

from typing import Any

from pandacea.devchain.records import Block, Log, Mined

_LEGACY, _ACCESS_LIST = 0, 1


def quantity(value: int) -> str:
    """`0x`, no leading zeros."""
    return hex(value)


def data(value: bytes) -> str:
    """`0x` and two digits a byte."""
    return "0x" + bytes(value).hex()


def word(value: int) -> str:
    """32 bytes."""
    return data(value.to_bytes(32, "big"))


def bloom(value: int) -> str:
    """256 bytes."""
    return data(value.to_bytes(256, "big"))


def block(found: Block, *, full: bool) -> dict[str, Any]:
    """A block, with its transactions whole or by hash."""
    header = found.header
    return {
        "number": quantity(header.block_number),
        "hash": data(found.hash),
        "parentHash": data(header.parent_hash),
        "nonce": data(header.nonce),
        "sha3Uncles": data(header.uncles_hash),
        "logsBloom": bloom(header.bloom),
        "transactionsRoot": data(header.transaction_root),
        "stateRoot": data(header.state_root),
        "receiptsRoot": data(header.receipt_root),
        "miner": data(header.coinbase),
        "difficulty": quantity(header.difficulty),
        "extraData": data(header.extra_data),
        "size": quantity(found.size),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "timestamp": quantity(header.timestamp),
        "baseFeePerGas": quantity(header.base_fee_per_gas),
        "mixHash": data(header.mix_hash),
        "withdrawalsRoot": data(header.withdrawals_root),
        "blobGasUsed": quantity(header.blob_gas_used),
        "excessBlobGas": quantity(header.excess_blob_gas),
        "parentBeaconBlockRoot": data(header.parent_beacon_block_root),
        "requestsHash": data(header.requests_hash),
        "withdrawals": [],
        "uncles": [],
        "transactions": [transaction(one, found) if full else data(one.hash) for one in found.transactions],
    }


def transaction(mined: Mined, found: Block) -> dict[str, Any]:
    """A transaction with what was signed, so that a reader can recompute its hash and its sender."""
    signed = mined.transaction
    kind = _kind(signed)
    shown: dict[str, Any] = {
        "type": quantity(kind),
        "hash": data(mined.hash),
        "nonce": quantity(signed.nonce),
        "blockHash": data(found.hash),
        "blockNumber": quantity(mined.block_number),
        "transactionIndex": quantity(mined.index),
        "from": data(mined.sender),
        "to": data(signed.to) if signed.to else None,
        "value": quantity(signed.value),
        "gas": quantity(signed.gas),
        "gasPrice": quantity(_gas_price(signed, kind, found)),
        "input": data(signed.data),
        "r": quantity(signed.r),
        "s": quantity(signed.s),
    }
    if kind == _LEGACY:
        return {**shown, "v": quantity(signed.v)}
    shown |= {
        "chainId": quantity(signed.chain_id),
        "accessList": [
            {"address": data(address), "storageKeys": [word(key) for key in keys]} for address, keys in signed.access_list or ()
        ],
        "v": quantity(signed.y_parity),
        "yParity": quantity(signed.y_parity),
    }
    if kind == _ACCESS_LIST:
        return shown
    return {
        **shown,
        "maxFeePerGas": quantity(signed.max_fee_per_gas),
        "maxPriorityFeePerGas": quantity(signed.max_priority_fee_per_gas),
    }


def receipt(mined: Mined, found: Block) -> dict[str, Any]:
    """What came of a transaction."""
    kind = _kind(mined.transaction)
    return {
        "type": quantity(kind),
        "transactionHash": data(mined.hash),
        "transactionIndex": quantity(mined.index),
        "blockHash": data(found.hash),
        "blockNumber": quantity(mined.block_number),
        "from": data(mined.sender),
        "to": data(mined.transaction.to) if mined.transaction.to else None,
        "contractAddress": None if mined.created is None else data(mined.created),
        "status": quantity(int(mined.succeeded)),
        "gasUsed": quantity(mined.gas_used),
        "cumulativeGasUsed": quantity(mined.cumulative_gas_used),
        "effectiveGasPrice": quantity(_gas_price(mined.transaction, kind, found)),
        "logsBloom": bloom(mined.bloom),
        "logs": [log(one) for one in mined.logs],
    }


def log(one: Log) -> dict[str, Any]:
    """One log."""
    return {
        "address": data(one.address),
        "topics": [data(topic) for topic in one.topics],
        "data": data(one.data),
        "blockNumber": quantity(one.block_number),
        "blockHash": data(one.block_hash),
        "transactionHash": data(one.transaction_hash),
        "transactionIndex": quantity(one.transaction_index),
        "logIndex": quantity(one.index),
        "removed": False,
    }


def _kind(signed: Any) -> int:
    return getattr(signed, "type_id", None) or _LEGACY  # a legacy transaction has the member, and None in it


def _gas_price(signed: Any, kind: int, found: Block) -> int:
    price: int = signed.gas_price if kind <= _ACCESS_LIST else 0
    if kind > _ACCESS_LIST:
        price = min(signed.max_fee_per_gas, signed.max_priority_fee_per_gas + found.header.base_fee_per_gas)
    return price
