"""Transactions that survive a crash: written before they are sent, sent again as they are, replaced when stuck, done once.

The chain decides what is done: a purpose is fulfilled when the contract says so, whoever's transaction did it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

import structlog
from eth_utils.address import to_checksum_address

from pandacea.chain.endpoints import EndpointPool
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.chain.rpc_messages import BaseFee, TransactionReceipt
from pandacea.chain.sending.fees import DAY_SECONDS, FeeLimits
from pandacea.chain.sending.reverts import error_from_revert, insufficient_funds
from pandacea.domain.ids import Address, ComputationId, Hash32, LeaseId
from pandacea.errors import Refused, Unavailable
from pandacea.flows.chain_store import SentTransaction, SentTransactionStore
from pandacea_sdk.protocol.contract import lease_agreement

log = structlog.get_logger(__name__)

ALLOWED: Final = frozenset({"commitResult", "executeLease", "approveLease", "cancelLease"})
"""The functions this node ever calls. Value is always 0."""

RECEIPT: Final = "eth_getTransactionReceipt"

_BUMP: Final = (9, 8)
"""A replacement pays 9/8 of what it replaces: nodes ask for a tenth more."""


class Signer(Protocol):
    """An eth_account LocalAccount, or something that signs like one."""

    @property
    def address(self) -> Any: ...

    def sign_transaction(self, transaction_dict: Any) -> Any: ...


class ChainSender:
    """Sends this node's transactions to one contract. One at a time. Implements `flows.ports.ResultPoster`."""

    def __init__(
        self,
        endpoints: EndpointPool,
        records: SentTransactionStore,
        signer: Signer,
        contract: Address,
        *,
        limits: FeeLimits | None = None,
        now: Callable[[], float] = time.time,
        poll: float = 0.5,
    ) -> None:
        """`poll`: seconds between two looks for a receipt."""
        self._endpoints = endpoints
        self._records = records
        self._signer = signer
        self._contract = contract
        self._limits = limits or FeeLimits()
        self._now = now
        self._poll = poll
        self._lock = asyncio.Lock()
        self.address = Address(str(signer.address).lower())

    # -- what it is asked for

    async def commit_result(self, lease_id: LeaseId, computation_id: ComputationId, result_hash: Hash32) -> str:
        """See `flows.ports.ResultPoster`. Returns the hash of the mined transaction (`already-committed` when it was not ours)."""
        data = lease_agreement().encode_call("commitResult", lease_id, computation_id, result_hash)

        async def done(endpoint: Endpoint) -> bool:
            ask = lease_agreement().encode_call("committedResult", lease_id, computation_id)
            found = await endpoint.eth_call(self._contract, "0x" + ask.hex())
            if not any(found):
                return False
            if "0x" + found.hex() == result_hash:
                return True
            raise Refused(
                f"For computation {computation_id} another result (0x{found.hex()}) is committed already; a second is never taken."
            )

        return await self._once(f"commitResult:{lease_id}:{computation_id}", data, done)

    async def _once(self, purpose: str, data: bytes, done: Callable[[Endpoint], Any]) -> str:
        """Bring one purpose about, however often called.

        Raises:
            Refused: the contract will never take it.
            Unavailable: not now; what was signed is kept and goes on from there.
        """
        name = purpose.split(":", 1)[0]
        assert name in ALLOWED, name
        async with self._lock:
            endpoint = await self._endpoints.pick_endpoint()
            try:
                return await self._bring_about(endpoint, purpose, data, done)
            except RpcFault as fault:
                if fault.kind is not FaultKind.ERROR:
                    self._endpoints.record_failure(endpoint, fault)
                raise

    async def _bring_about(self, endpoint: Endpoint, purpose: str, data: bytes, done: Callable[[Endpoint], Any]) -> str:
        chain_id = self._endpoints.chain_id
        attempts = [row for row in await self._records.list_attempts(chain_id, self.address, purpose) if row.state != "lost"]
        if await done(endpoint):
            mined = await self._mined(endpoint, attempts)
            return mined.tx_hash if mined else "already-committed"
        attempts = await self._still_possible(endpoint, attempts)
        if not attempts:
            attempts = [await self._first(endpoint, purpose, data, chain_id)]
        elif self._now() - attempts[-1].at > self._limits.bump_after_seconds:
            attempts.append(await self._bump(endpoint, attempts[-1], data))
        await self._push(endpoint, attempts[-1])
        return await self._wait(endpoint, attempts, data)

    # -- attempts

    async def _still_possible(self, endpoint: Endpoint, attempts: list[SentTransaction]) -> list[SentTransaction]:
        """The attempts whose nonce the chain has not used otherwise; the others are marked lost."""
        if not attempts:
            return []
        # Asked before the receipts: a transaction mined in between has a receipt by then.
        used = await endpoint.call_quantity("eth_getTransactionCount", [self.address, "latest"])
        kept = []
        for row in attempts:
            if row.nonce < used and await self._receipt(endpoint, row) is None:
                await self._records.update_state(row, "lost")
                log.warning("sender.lost", purpose=row.purpose, nonce=row.nonce, transaction=row.tx_hash)
            else:
                kept.append(row)
        return kept

    async def _first(self, endpoint: Endpoint, purpose: str, data: bytes, chain_id: int) -> SentTransaction:
        gas = await self._gas(endpoint, data)
        head = await endpoint.call_method("eth_getBlockByNumber", ["latest", False], BaseFee)
        base = endpoint.parse_number(head.base_fee_per_gas, "eth_getBlockByNumber")
        fee, tip = 2 * base + self._limits.priority_fee_wei, self._limits.priority_fee_wei
        nonce = await endpoint.call_quantity("eth_getTransactionCount", [self.address, "pending"])
        for row in await self._records.list_open(chain_id, self.address):
            nonce = max(nonce, row.nonce + 1)
        return await self._signed(purpose, data, chain_id, nonce, 0, gas, fee, tip)

    async def _bump(self, endpoint: Endpoint, last: SentTransaction, data: bytes) -> SentTransaction:
        gas = await self._gas(endpoint, data)
        up, down = _BUMP
        fee, tip = last.max_fee * up // down + 1, last.priority_fee * up // down + 1
        log.warning("sender.stuck", purpose=last.purpose, nonce=last.nonce, seconds=round(self._now() - last.at), max_fee=fee)
        return await self._signed(last.purpose, data, last.chain_id, last.nonce, last.attempt + 1, gas, fee, tip)

    async def _signed(
        self, purpose: str, data: bytes, chain_id: int, nonce: int, attempt: int, gas: int, fee: int, tip: int
    ) -> SentTransaction:
        cost = gas * fee
        await self._afford(chain_id, nonce, cost)
        signed = self._signer.sign_transaction(
            {
                "type": 2,
                "chainId": chain_id,
                "nonce": nonce,
                "to": to_checksum_address(self._contract),
                "value": 0,
                "data": "0x" + data.hex(),
                "gas": gas,
                "maxFeePerGas": fee,
                "maxPriorityFeePerGas": tip,
            }
        )
        row = SentTransaction(
            chain_id=chain_id,
            sender=self.address,
            nonce=nonce,
            attempt=attempt,
            purpose=purpose,
            tx_hash=Hash32("0x" + bytes(signed.hash).hex()),
            raw="0x" + bytes(signed.raw_transaction).hex(),
            max_cost=cost,
            max_fee=fee,
            priority_fee=tip,
            at=self._now(),
            state="signed",
        )
        await self._records.insert_attempt(row)
        return row

    async def _afford(self, chain_id: int, nonce: int, cost: int) -> None:
        recent = await self._records.list_since(chain_id, self.address, self._now() - DAY_SECONDS)
        self._limits.check_caps(nonce, cost, recent)

    async def _gas(self, endpoint: Endpoint, data: bytes) -> int:
        call = {"from": self.address, "to": self._contract, "data": "0x" + data.hex(), "value": "0x0"}
        try:
            needed = await endpoint.call_quantity("eth_estimateGas", [call])
        except RpcFault as fault:
            if fault.kind is FaultKind.ERROR:
                raise error_from_revert(fault, self.address) from fault
            raise
        wanted = needed * 5 // 4
        if wanted > self._limits.max_gas:
            raise Refused(
                f"The contract would need {needed} gas, more than any call of ours should: {self._limits.max_gas} at most."
            )
        return wanted

    # -- sending and waiting

    async def _push(self, endpoint: Endpoint, row: SentTransaction) -> None:
        """Send what was signed; sending it twice changes nothing."""
        try:
            await endpoint.call_method("eth_sendRawTransaction", [row.raw], str)
        except RpcFault as fault:
            text = fault.detail.lower()
            if any(words in text for words in ("already known", "already imported", "known transaction", "already exists")):
                return
            if "nonce too low" in text:
                return  # mined meanwhile, by us or otherwise: the receipt tells
            if "insufficient funds" in text:
                raise insufficient_funds(self.address) from fault
            if "underpriced" in text:
                # Somebody's (an earlier process's) transaction with this nonce pays more: wait until it is mined or we bump.
                log.warning("sender.underpriced", purpose=row.purpose, nonce=row.nonce)
                return
            raise

    async def _wait(self, endpoint: Endpoint, attempts: list[SentTransaction], data: bytes) -> str:
        until = self._now() + self._limits.wait_seconds
        while True:
            mined = await self._mined(endpoint, attempts)
            if mined is not None:
                return mined.tx_hash
            if await self._all_reverted(endpoint, attempts):
                for row in attempts:
                    await self._records.update_state(row, "lost")
                await self._gas(endpoint, data)  # asks the contract why
                raise Unavailable("The transaction was mined and undone; it is sent again.", retry_after=5)
            if self._now() >= until:
                raise Unavailable(
                    f"Transaction {attempts[-1].tx_hash} is sent and not mined yet; it is looked after.",
                    retry_after=max(1, round(self._poll * 10)),
                )
            await asyncio.sleep(self._poll)

    async def _mined(self, endpoint: Endpoint, attempts: list[SentTransaction]) -> SentTransaction | None:
        for row in reversed(attempts):
            receipt = await self._receipt(endpoint, row)
            if receipt is not None and endpoint.parse_number(receipt.status, RECEIPT) == 1:
                if row.state == "signed":
                    await self._records.update_state(row, "mined", endpoint.parse_number(receipt.block_number, RECEIPT))
                return row
        return None

    async def _all_reverted(self, endpoint: Endpoint, attempts: list[SentTransaction]) -> bool:
        for row in attempts:
            receipt = await self._receipt(endpoint, row)
            if receipt is not None and endpoint.parse_number(receipt.status, RECEIPT) == 0:
                return True
        return False

    async def _receipt(self, endpoint: Endpoint, row: SentTransaction) -> TransactionReceipt | None:
        receipt = await endpoint.call_nullable(RECEIPT, [row.tx_hash], TransactionReceipt)
        return receipt if receipt is not None and receipt.block_number else None

    # -- after a reorg

    async def resend_undone(self) -> int:
        """Look at what was mined but may still be undone, and send again what a reorg threw out; returns how many that was.

        Raises:
            Unavailable: no endpoint or no database; nothing was decided.
        """
        async with self._lock:
            endpoint = await self._endpoints.pick_endpoint()
            chain_id = self._endpoints.chain_id
            head = int((await endpoint.get_header("latest")).number, 16)
            again = 0
            for row in await self._records.list_open(chain_id, self.address):
                receipt = await self._receipt(endpoint, row)
                if receipt is None:
                    again += await self._send_again(endpoint, row)
                elif head - (mined := endpoint.parse_number(receipt.block_number, RECEIPT)) >= self._limits.final_depth_blocks:
                    await self._records.update_state(row, "final", mined)
            return again

    async def _send_again(self, endpoint: Endpoint, row: SentTransaction) -> int:
        """A nonce that was signed for must be used, or every later one waits for it."""
        if not await self._still_possible(endpoint, [row]):
            return 0
        if row.state == "mined":
            log.warning("sender.undone-by-reorg", purpose=row.purpose, transaction=row.tx_hash)
            await self._records.update_state(row, "signed")
        await self._push(endpoint, row)
        return 1
