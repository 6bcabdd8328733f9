"""Sends transactions that survive a crash: stored before they are sent, sent again unchanged, replaced when stuck, effective once.

The chain decides what is done: a purpose is fulfilled when the contract says so, whoever's transaction did it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from eth_account.signers.local import LocalAccount
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

_RECEIPT: Final = "eth_getTransactionReceipt"

_BUMP: Final = (9, 8)
"""A replacement pays 9/8 of the fee that it replaces, as a fraction; Ethereum nodes require a tenth more."""


class ChainSender:
    """Sends this node's transactions to one contract, one at a time. Implements `flows.ports.ResultPoster`."""

    def __init__(
        self,
        endpoints: EndpointPool,
        store: SentTransactionStore,
        account: LocalAccount,
        contract: Address,
        *,
        limits: FeeLimits | None = None,
        now: Callable[[], float] = time.time,
        poll: float = 0.5,
    ) -> None:
        """`account`: signs and pays; `poll`: seconds between two requests for a receipt."""
        self._endpoints = endpoints
        self._store = store
        self._account = account
        self._contract = contract
        self._limits = limits or FeeLimits()
        self._now = now
        self._poll = poll
        self._lock = asyncio.Lock()
        self.address = Address(str(account.address).lower())

    # -- results

    async def commit_result(self, lease_id: LeaseId, computation_id: ComputationId, result_hash: Hash32) -> str:
        """Commit a result once; return the hash of the mined transaction (`already-committed` when another sender did it)."""
        data = lease_agreement().encode_call("commitResult", lease_id, computation_id, result_hash)

        async def done(endpoint: Endpoint) -> bool:
            call = lease_agreement().encode_call("committedResult", lease_id, computation_id)
            found = await endpoint.eth_call(self._contract, "0x" + call.hex())
            if not any(found):
                return False
            if "0x" + found.hex() == result_hash:
                return True
            raise Refused(
                f"Another result (0x{found.hex()}) is already committed for computation {computation_id}; the contract takes no second."
            )

        return await self._fulfil_once(f"commitResult:{lease_id}:{computation_id}", data, done)

    async def _fulfil_once(self, purpose: str, data: bytes, done: Callable[[Endpoint], Awaitable[bool]]) -> str:
        """Fulfil a purpose once, however often called.

        Raises:
            Refused: the contract refuses it for good.
            Unavailable: not now; the next call continues with what was signed.
        """
        async with self._lock:
            endpoint = await self._endpoints.pick_endpoint()
            try:
                return await self._fulfil(endpoint, purpose, data, done)
            except RpcFault as fault:
                if fault.kind is not FaultKind.ERROR:
                    self._endpoints.record_failure(endpoint, fault)
                raise

    async def _fulfil(self, endpoint: Endpoint, purpose: str, data: bytes, done: Callable[[Endpoint], Awaitable[bool]]) -> str:
        chain_id = self._endpoints.chain_id
        attempts = [row for row in await self._store.list_attempts(chain_id, self.address, purpose) if row.state != "lost"]
        if await done(endpoint):
            mined = await self._find_mined(endpoint, attempts)
            return mined.tx_hash if mined else "already-committed"
        attempts = await self._keep_possible(endpoint, attempts)
        if not attempts:
            attempts = [await self._sign_first(endpoint, purpose, data, chain_id)]
        elif self._now() - attempts[-1].at > self._limits.bump_after_seconds:
            attempts.append(await self._sign_replacement(endpoint, attempts[-1], data))
        await self._send(endpoint, attempts[-1])
        return await self._wait_until_mined(endpoint, attempts, data)

    # -- attempts

    async def _keep_possible(self, endpoint: Endpoint, attempts: list[SentTransaction]) -> list[SentTransaction]:
        """Return the attempts whose nonce no other transaction used; mark the others as lost."""
        if not attempts:
            return []
        # Asked before the receipts: a transaction mined in between has a receipt by then.
        used = await endpoint.call_quantity("eth_getTransactionCount", [self.address, "latest"])
        kept = []
        for row in attempts:
            if row.nonce < used and await self._get_receipt(endpoint, row) is None:
                await self._store.update_state(row, "lost")
                log.warning("sender.lost", purpose=row.purpose, nonce=row.nonce, transaction=row.tx_hash)
            else:
                kept.append(row)
        return kept

    async def _sign_first(self, endpoint: Endpoint, purpose: str, data: bytes, chain_id: int) -> SentTransaction:
        gas = await self._estimate_gas(endpoint, data)
        head = await endpoint.call_method("eth_getBlockByNumber", ["latest", False], BaseFee)
        base = endpoint.parse_number(head.base_fee_per_gas, "eth_getBlockByNumber")
        fee, tip = 2 * base + self._limits.priority_fee_wei, self._limits.priority_fee_wei
        nonce = await endpoint.call_quantity("eth_getTransactionCount", [self.address, "pending"])
        for row in await self._store.list_open(chain_id, self.address):
            nonce = max(nonce, row.nonce + 1)
        return await self._sign(purpose, data, chain_id, nonce, 0, gas, fee, tip)

    async def _sign_replacement(self, endpoint: Endpoint, last: SentTransaction, data: bytes) -> SentTransaction:
        gas = await self._estimate_gas(endpoint, data)
        up, down = _BUMP
        fee, tip = last.max_fee * up // down + 1, last.priority_fee * up // down + 1
        log.warning("sender.stuck", purpose=last.purpose, nonce=last.nonce, seconds=round(self._now() - last.at), max_fee=fee)
        return await self._sign(last.purpose, data, last.chain_id, last.nonce, last.attempt + 1, gas, fee, tip)

    async def _sign(
        self, purpose: str, data: bytes, chain_id: int, nonce: int, attempt: int, gas: int, fee: int, tip: int
    ) -> SentTransaction:
        cost = gas * fee
        await self._check_caps(chain_id, nonce, cost)
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": chain_id,
                "nonce": nonce,
                "to": to_checksum_address(self._contract),
                "value": 0,
                "data": data,
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
        await self._store.insert_attempt(row)
        return row

    async def _check_caps(self, chain_id: int, nonce: int, cost: int) -> None:
        recent = await self._store.list_since(chain_id, self.address, self._now() - DAY_SECONDS)
        self._limits.check_caps(nonce, cost, recent)

    async def _estimate_gas(self, endpoint: Endpoint, data: bytes) -> int:
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
                f"The contract would need {needed} gas, with a margin more than the {self._limits.max_gas} that a call may use."
            )
        return wanted

    # -- sending and waiting

    async def _send(self, endpoint: Endpoint, row: SentTransaction) -> None:
        """Send a signed attempt; sending it twice changes nothing."""
        try:
            await endpoint.call_method("eth_sendRawTransaction", [row.raw], str)
        except RpcFault as fault:
            text = fault.detail.lower()
            if any(words in text for words in ("already known", "already imported", "known transaction", "already exists")):
                return
            if "nonce too low" in text:
                return  # a transaction with this nonce was mined meanwhile; the receipt shows which
            if "insufficient funds" in text:
                raise insufficient_funds(self.address) from fault
            if "underpriced" in text:
                # Another transaction with this nonce (of an earlier process) pays more: wait until it is mined or this one is replaced.
                log.warning("sender.underpriced", purpose=row.purpose, nonce=row.nonce)
                return
            raise

    async def _wait_until_mined(self, endpoint: Endpoint, attempts: list[SentTransaction], data: bytes) -> str:
        until = self._now() + self._limits.wait_seconds
        while True:
            mined = await self._find_mined(endpoint, attempts)
            if mined is not None:
                return mined.tx_hash
            if await self._any_reverted(endpoint, attempts):
                for row in attempts:
                    await self._store.update_state(row, "lost")
                await self._estimate_gas(endpoint, data)  # raises the contract's reason
                raise Unavailable("The transaction was mined and reverted; it is sent again.", retry_after=5)
            if self._now() >= until:
                raise Unavailable(
                    f"Transaction {attempts[-1].tx_hash} was sent and is not mined yet; the node checks it again.",
                    retry_after=max(1, round(self._poll * 10)),
                )
            await asyncio.sleep(self._poll)

    async def _find_mined(self, endpoint: Endpoint, attempts: list[SentTransaction]) -> SentTransaction | None:
        for row in reversed(attempts):
            receipt = await self._get_receipt(endpoint, row)
            if receipt is not None and endpoint.parse_number(receipt.status, _RECEIPT) == 1:
                if row.state == "signed":
                    await self._store.update_state(row, "mined", endpoint.parse_number(receipt.block_number, _RECEIPT))
                return row
        return None

    async def _any_reverted(self, endpoint: Endpoint, attempts: list[SentTransaction]) -> bool:
        for row in attempts:
            receipt = await self._get_receipt(endpoint, row)
            if receipt is not None and endpoint.parse_number(receipt.status, _RECEIPT) == 0:
                return True
        return False

    async def _get_receipt(self, endpoint: Endpoint, row: SentTransaction) -> TransactionReceipt | None:
        receipt = await endpoint.call_nullable(_RECEIPT, [row.tx_hash], TransactionReceipt)
        return receipt if receipt is not None and receipt.block_number else None

    # -- after a reorg

    async def resend_undone(self) -> int:
        """Check mined transactions until they are final, and send again those that a reorg undid; return how many.

        Raises:
            Unavailable: no endpoint or no database; nothing was decided.
        """
        async with self._lock:
            endpoint = await self._endpoints.pick_endpoint()
            chain_id = self._endpoints.chain_id
            head = int((await endpoint.get_header("latest")).number, 16)
            resent = 0
            for row in await self._store.list_open(chain_id, self.address):
                receipt = await self._get_receipt(endpoint, row)
                if receipt is None:
                    resent += await self._send_again(endpoint, row)
                elif head - (mined := endpoint.parse_number(receipt.block_number, _RECEIPT)) >= self._limits.final_depth_blocks:
                    await self._store.update_state(row, "final", mined)
            return resent

    async def _send_again(self, endpoint: Endpoint, row: SentTransaction) -> int:
        """Send an attempt again; its nonce must be used, or every later transaction waits for it."""
        if not await self._keep_possible(endpoint, [row]):
            return 0
        if row.state == "mined":
            log.warning("sender.undone_by_reorg", purpose=row.purpose, transaction=row.tx_hash)
            await self._store.update_state(row, "signed")
        await self._send(endpoint, row)
        return 1
