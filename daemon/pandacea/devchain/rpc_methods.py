"""The JSON-RPC methods of the embedded chain: from parameters to answers; wrong parameters are refused with a reason."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from eth_typing import Address

from pandacea.devchain import rpc_encoding
from pandacea.devchain.ledger import CHAIN_ID, GAS_PRICE_WEI, PRIORITY_FEE_WEI, DevLedger
from pandacea.devchain.model import ZERO_ADDRESS, CallRequest, MinedBlock, MinedLog
from pandacea.errors import Refused
from pandacea_sdk.protocol.ids import HEX_BYTES
from pandacea_sdk.protocol.json_types import JsonObject

_HEAD_TAGS: Final = frozenset({"latest", "safe", "finalized", "pending"})
"""All mean the head here: there are no reorgs and no pending transactions."""
MAX_FEE_HISTORY_BLOCKS: Final = 1024
"""Of one `eth_feeHistory`."""


class InvalidParams(Refused):
    """The parameters of a method are malformed."""

    code = "bad-params"


class UnknownBlock(Refused):
    """The chain has no such block."""

    code = "block-unknown"


Params = list[Any]
"""The parameters of one call, each of any JSON type."""
Method = Callable[[DevLedger, Params], object]


def _param(params: Params, position: int, name: str) -> Any:
    if position >= len(params):
        raise InvalidParams(f"parameter {position + 1} ({name}) is missing")
    return params[position]


def _bytes(value: object, name: str, size: int | None = None) -> bytes:
    if not isinstance(value, str) or not HEX_BYTES.fullmatch(value):
        raise InvalidParams(f"{name} must be 0x and an even number of hex digits, not {value!r}")
    found = bytes.fromhex(value[2:])
    if size is not None and len(found) != size:
        raise InvalidParams(f"{name} must be {size} bytes, not {len(found)}")
    return found


def _int(value: object, name: str) -> int:
    try:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        return int(str(value), 16)
    except ValueError:
        raise InvalidParams(f"{name} must be a hex quantity, not {value!r}") from None


def _block(ledger: DevLedger, tag: object) -> MinedBlock | None:
    if isinstance(tag, Mapping):  # EIP-1898
        if "blockHash" in tag:
            return ledger.find_block(_bytes(tag["blockHash"], "blockHash", 32))
        tag = tag.get("blockNumber", "latest")
    if tag is None or tag in _HEAD_TAGS:
        return ledger.head
    number = 0 if tag == "earliest" else _int(tag, "block")
    return ledger.blocks[number] if 0 <= number < len(ledger.blocks) else None


def _bound(ledger: DevLedger, tag: object) -> int:
    if tag is None or tag in _HEAD_TAGS:
        return ledger.head_number
    return 0 if tag == "earliest" else _int(tag, "block")


def _known(ledger: DevLedger, params: Params, position: int) -> MinedBlock:
    tag = params[position] if position < len(params) else "latest"
    found = _block(ledger, tag)
    if found is None:
        raise UnknownBlock(f"no block {tag!r}; the head is {ledger.head_number}")
    return found


def _call_of(params: Params) -> CallRequest:
    asked = _param(params, 0, "transaction")
    if not isinstance(asked, Mapping):
        raise InvalidParams(f"a transaction is an object, not {asked!r}")
    return CallRequest(
        sender=_bytes(asked["from"], "from", 20) if asked.get("from") else ZERO_ADDRESS,
        to=_bytes(asked["to"], "to", 20) if asked.get("to") else b"",
        data=_bytes(asked.get("input") or asked.get("data") or "0x", "input"),
        value=_int(asked.get("value") or 0, "value"),
        gas=_int(asked["gas"], "gas") if asked.get("gas") else None,
    )


def get_block_by_number(ledger: DevLedger, params: Params) -> JsonObject | None:
    """Answer eth_getBlockByNumber; null beyond the head."""
    found = _block(ledger, _param(params, 0, "block"))
    return None if found is None else rpc_encoding.encode_block(found, full=bool(params[1:] and params[1]))


def get_block_by_hash(ledger: DevLedger, params: Params) -> JsonObject | None:
    """Answer eth_getBlockByHash; null for an unknown hash."""
    found = ledger.find_block(_bytes(_param(params, 0, "hash"), "hash", 32))
    return None if found is None else rpc_encoding.encode_block(found, full=bool(params[1:] and params[1]))


def get_transaction_by_hash(ledger: DevLedger, params: Params) -> JsonObject | None:
    """Answer eth_getTransactionByHash; null for a transaction that is not mined."""
    mined = ledger.find_transaction(_bytes(_param(params, 0, "hash"), "hash", 32))
    return None if mined is None else rpc_encoding.encode_transaction(mined, ledger.blocks[mined.block_number])


def get_transaction_receipt(ledger: DevLedger, params: Params) -> JsonObject | None:
    """Answer eth_getTransactionReceipt; null for a transaction that is not mined."""
    mined = ledger.find_transaction(_bytes(_param(params, 0, "hash"), "hash", 32))
    return None if mined is None else rpc_encoding.encode_receipt(mined, ledger.blocks[mined.block_number])


def get_logs(ledger: DevLedger, params: Params) -> list[JsonObject]:
    """Answer eth_getLogs by range or by block hash (EIP-234); a range beyond the head is not an error."""
    asked = _param(params, 0, "filter")
    if not isinstance(asked, Mapping):
        raise InvalidParams(f"a filter is an object, not {asked!r}")
    if asked.get("blockHash") is not None:
        if asked.get("fromBlock") is not None or asked.get("toBlock") is not None:
            raise InvalidParams("a filter names blockHash, or fromBlock and toBlock, not both")
        found = ledger.find_block(_bytes(asked["blockHash"], "blockHash", 32))
        if found is None:
            raise UnknownBlock(f"no block has the hash {asked['blockHash']}")
        first = last = found.header.block_number
    else:
        first, last = _bound(ledger, asked.get("fromBlock")), _bound(ledger, asked.get("toBlock"))
        if first > last:
            raise InvalidParams(f"fromBlock {first} is after toBlock {last}")
    addresses, topics = _addresses(asked.get("address")), _topics(asked.get("topics"))
    return [rpc_encoding.encode_log(log) for log in ledger.list_logs(first, last) if _matches(log, addresses, topics)]


def _addresses(asked: object) -> frozenset[bytes] | None:
    if not asked:
        return None
    return frozenset(_bytes(entry, "address", 20) for entry in (asked if isinstance(asked, list) else [asked]))


def _topics(asked: object) -> list[frozenset[bytes] | None]:
    if asked is not None and not isinstance(asked, list):
        raise InvalidParams(f"topics is a list, not {asked!r}")
    return [
        frozenset(_bytes(topic, "topic", 32) for topic in (position if isinstance(position, list) else [position]))
        if position
        else None
        for position in asked or []
    ]


def _matches(log: MinedLog, addresses: frozenset[bytes] | None, topics: list[frozenset[bytes] | None]) -> bool:
    if addresses is not None and log.address not in addresses:
        return False
    if len(topics) > len(log.topics):
        return False
    return all(wanted is None or topic in wanted for wanted, topic in zip(topics, log.topics, strict=False))


def eth_call(ledger: DevLedger, params: Params) -> str:
    """Answer eth_call: the returned bytes."""
    return rpc_encoding.encode_data(ledger.run_call(_call_of(params), _known(ledger, params, 1)))


def estimate_gas(ledger: DevLedger, params: Params) -> str:
    """Answer eth_estimateGas: gas as a QUANTITY."""
    return rpc_encoding.encode_quantity(ledger.estimate_gas(_call_of(params), _known(ledger, params, 1)))


def _address(params: Params) -> Address:
    return Address(_bytes(_param(params, 0, "address"), "address", 20))


def get_balance(ledger: DevLedger, params: Params) -> str:
    """Answer eth_getBalance: wei as a QUANTITY."""
    return rpc_encoding.encode_quantity(ledger.state_at(_known(ledger, params, 1)).get_balance(_address(params)))


def get_code(ledger: DevLedger, params: Params) -> str:
    """Answer eth_getCode: empty without code."""
    return rpc_encoding.encode_data(ledger.state_at(_known(ledger, params, 1)).get_code(_address(params)))


def get_transaction_count(ledger: DevLedger, params: Params) -> str:
    """Answer eth_getTransactionCount: the account's nonce."""
    return rpc_encoding.encode_quantity(ledger.state_at(_known(ledger, params, 1)).get_nonce(_address(params)))


def get_storage_at(ledger: DevLedger, params: Params) -> str:
    """Answer eth_getStorageAt: a word of 32 bytes."""
    slot = _int(_param(params, 1, "slot"), "slot")
    return rpc_encoding.encode_word(ledger.state_at(_known(ledger, params, 2)).get_storage(_address(params), slot))


def fee_history(ledger: DevLedger, params: Params) -> JsonObject:
    """Answer eth_feeHistory; the next block's base fee is taken to be the head's, and each reward the suggested one."""
    count = min(max(1, _int(_param(params, 0, "count"), "count")), MAX_FEE_HISTORY_BLOCKS)
    newest = _known(ledger, params, 1).header.block_number
    blocks = ledger.blocks[max(0, newest + 1 - count) : newest + 1]
    fees = [rpc_encoding.encode_quantity(block.header.base_fee_per_gas or 0) for block in blocks]
    history = {
        "oldestBlock": rpc_encoding.encode_quantity(blocks[0].header.block_number),
        "baseFeePerGas": [*fees, fees[-1]],
        "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
    }
    percentiles = params[2] if len(params) > 2 else None
    return (
        {**history, "reward": [[rpc_encoding.encode_quantity(PRIORITY_FEE_WEI) for _ in percentiles] for _ in blocks]}
        if percentiles
        else history
    )


def increase_time(ledger: DevLedger, params: Params) -> str:
    """Answer evm_increaseTime: move the time, mine a block, and return the new head's timestamp."""
    ledger.advance_time(_int(_param(params, 0, "seconds"), "seconds"))
    return rpc_encoding.encode_quantity(ledger.head.header.timestamp)


METHODS: Final[Mapping[str, Method]] = {
    "web3_clientVersion": lambda _l, _p: "pandacea-devchain/py-evm",
    "net_version": lambda _l, _p: str(CHAIN_ID),
    "eth_syncing": lambda _l, _p: False,
    "eth_chainId": lambda _l, _p: rpc_encoding.encode_quantity(CHAIN_ID),
    "eth_blockNumber": lambda ledger, _p: rpc_encoding.encode_quantity(ledger.head_number),
    "eth_gasPrice": lambda _l, _p: rpc_encoding.encode_quantity(GAS_PRICE_WEI),
    "eth_maxPriorityFeePerGas": lambda _l, _p: rpc_encoding.encode_quantity(PRIORITY_FEE_WEI),
    "eth_feeHistory": fee_history,
    "eth_accounts": lambda ledger, _p: [account.address for account in ledger.accounts],
    "eth_getBalance": get_balance,
    "eth_getCode": get_code,
    "eth_getStorageAt": get_storage_at,
    "eth_getTransactionCount": get_transaction_count,
    "eth_getBlockByNumber": get_block_by_number,
    "eth_getBlockByHash": get_block_by_hash,
    "eth_getTransactionByHash": get_transaction_by_hash,
    "eth_getTransactionReceipt": get_transaction_receipt,
    "eth_getLogs": get_logs,
    "eth_call": eth_call,
    "eth_estimateGas": estimate_gas,
    "evm_increaseTime": increase_time,
}
"""All but eth_sendRawTransaction, which may have to wait for its block's second."""
