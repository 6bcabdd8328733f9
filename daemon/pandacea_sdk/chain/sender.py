"""Sign transactions, send them and wait for their blocks: EIP-1559 where the chain has it, legacy transactions elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from eth_account.signers.local import LocalAccount

from pandacea_sdk.chain.caps import Caps
from pandacea_sdk.chain.errors import ContractReverted, NotMined, RpcRefused, RpcUnavailable
from pandacea_sdk.chain.rpc import JsonRpcClient
from pandacea_sdk.protocol.addresses import to_checksum_address
from pandacea_sdk.protocol.contract import ContractAbi, ContractEvent
from pandacea_sdk.protocol.ids import HEX_QUANTITY
from pandacea_sdk.protocol.json_types import JsonMapping, JsonObject

T = TypeVar("T")

GAS_MARGIN: Final = 1.25
"""Factor on the estimate: transactions mined before this one may change the state that it finds."""
DEFAULT_PRIORITY_FEE: Final = 10**9
"""Wei per gas, where the endpoint suggests none."""
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0  # seconds between two questions for the receipt
_REVERTED: Final = 3
"""The JSON-RPC error code with which execution clients report a revert."""


@dataclass(frozen=True, slots=True)
class MinedTransaction:
    """A mined transaction that was not reverted. Gas in units, price in wei per gas."""

    transaction_hash: str
    block_number: int
    gas_used: int
    effective_gas_price: int
    contract_address: str | None
    events: tuple[ContractEvent, ...]
    """The contract's own events, decoded, in order."""

    def event(self, name: str) -> JsonMapping:
        """Return the values of the one event with this name."""
        (found,) = (event for event in self.events if event.name == name)
        return found.values


class TransactionSender:
    """Sends one account's transactions, one at a time, so that their nonces follow each other."""

    def __init__(
        self,
        rpc: JsonRpcClient,
        account: LocalAccount,
        abi: ContractAbi,
        chain_id: int,
        *,
        timeout: float,
        caps: Caps = Caps(),  # noqa: B008  it is frozen
    ) -> None:
        """`timeout`: seconds to wait for a block; `caps`: the most that one transaction may cost."""
        self._rpc, self._account, self._abi, self._chain_id, self._timeout = rpc, account, abi, chain_id, timeout
        self._caps = caps
        self._lock = asyncio.Lock()

    async def send(self, action: str, to: str | None, data: bytes, value: int = 0) -> MinedTransaction:
        """Send a transaction and wait until it is mined. `action` names it in errors; `to` None creates a contract; `value` in wei.

        Raises:
            FeeAboveCap: the endpoint asks for more fee, tip or gas than the caps allow; nothing was signed.
            ContractReverted: the contract reverted it, mostly before anything was sent.
            RpcRefused, RpcUnavailable: the endpoint refused it, or did not answer.
            NotMined: it was sent and is not in a block in time.
        """
        fields: JsonObject = {"value": value, "data": "0x" + data.hex()}
        if to is not None:
            fields["to"] = to
        asked = {**fields, "value": hex(value), "from": self._account.address}
        estimate = await decode_reverts(self._abi, action, self._rpc.call_for_quantity("eth_estimateGas", asked))
        gas = max(int(estimate * GAS_MARGIN), 1)
        self._caps.check_gas(action, gas)
        async with self._lock:
            nonce = await self._rpc.call_for_quantity("eth_getTransactionCount", self._account.address, "pending")
            transaction: JsonObject = {
                **fields,
                **await self._fees(action, gas),
                "gas": gas,
                "nonce": nonce,
                "chainId": self._chain_id,
            }
            if to is not None:
                transaction["to"] = to_checksum_address(to)
            raw = self._account.sign_transaction(transaction).raw_transaction
            sent = "0x" + (await self._rpc.call_for_bytes("eth_sendRawTransaction", "0x" + bytes(raw).hex())).hex()
        return await self._outcome(action, sent, asked)

    async def _fees(self, action: str, gas: int) -> Mapping[str, int]:
        """Ask what gas costs now, and hold it against the caps."""
        head = await self._rpc.call("eth_getBlockByNumber", "latest", False)
        base = head.get("baseFeePerGas") if isinstance(head, dict) else None
        if base is None:
            return self._caps.price_legacy_gas(action, gas, await self._rpc.call_for_quantity("eth_gasPrice"))
        if not isinstance(base, str) or not HEX_QUANTITY.fullmatch(base):
            raise RpcUnavailable(f"the endpoint's newest block has the base fee {str(base)[:80]!r}, which is not a hex quantity")
        try:
            tip = await self._rpc.call_for_quantity("eth_maxPriorityFeePerGas")
        except RpcRefused:
            tip = DEFAULT_PRIORITY_FEE
        return self._caps.price_gas(action, gas, int(base, 16), tip)

    async def _outcome(self, action: str, sent: str, asked: JsonObject) -> MinedTransaction:
        found = await self._mined(sent)
        try:
            if int(found["status"], 16) == 1:
                return self._read(sent, found)
            block = hex(int(found["blockNumber"], 16))
        except (KeyError, TypeError, ValueError) as error:
            raise RpcUnavailable(f"transaction {sent} is mined, but its receipt cannot be read: {error!r}") from error
        # Call it again on that block's state for the reason; a later transaction of the block may have hidden it.
        try:
            await decode_reverts(self._abi, action, self._rpc.call_for_bytes("eth_call", asked, block))
        except ContractReverted as error:
            raise ContractReverted(action, error.revert, sent) from None
        raise ContractReverted(action, self._abi.decode_revert(b""), sent)

    def _read(self, sent: str, found: JsonObject) -> MinedTransaction:
        logs = (self._abi.decode_event([_bytes(topic) for topic in log["topics"]], _bytes(log["data"])) for log in found["logs"])
        return MinedTransaction(
            transaction_hash=sent,
            block_number=int(found["blockNumber"], 16),
            gas_used=int(found["gasUsed"], 16),
            effective_gas_price=int(found.get("effectiveGasPrice") or "0x0", 16),
            contract_address=found["contractAddress"].lower() if found.get("contractAddress") else None,
            events=tuple(event for event in logs if event is not None),
        )

    async def _mined(self, sent: str) -> JsonObject:
        wait = _FIRST_WAIT
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    try:
                        found = await self._rpc.call("eth_getTransactionReceipt", sent)
                    except RpcUnavailable:
                        found = None  # it is sent: wait for a silent endpoint until the deadline
                    if isinstance(found, dict) and found.get("blockNumber"):
                        return found
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, _LONGEST_WAIT)
        except TimeoutError:
            raise NotMined(sent, self._timeout) from None


async def decode_reverts(abi: ContractAbi, action: str, call: Awaitable[T]) -> T:
    """Await a call that runs the contract; the endpoint's error becomes ContractReverted where the contract caused it."""
    try:
        return await call
    except RpcRefused as error:
        data = _revert_data(error.data)
        if data is None and error.code != _REVERTED and "revert" not in error.message.lower():
            raise
        raise ContractReverted(action, abi.decode_revert(data or b"")) from None


def _revert_data(data: object) -> bytes | None:
    """Find revert data in an error's `data`: endpoints send it as text, with or without a word before it, or in an object."""
    if isinstance(data, dict):
        data = data.get("data") or data.get("result")
    if not isinstance(data, str):
        return None
    try:
        return _bytes(data.rpartition(" ")[2])
    except ValueError:
        return None


def _bytes(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))
