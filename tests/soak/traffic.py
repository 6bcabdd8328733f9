"""Random transactions of Spenders, Earner and arbiter through a real LeaseAgreement, and reorganisations under them."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from eth_abi.abi import encode
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from pandacea.domain.lease import LeaseStatus
from tests.chain.anvil import EARNER, OPERATOR, OWNER, PRODUCT, SPENDER, STRANGER, AnvilAgreement, AnvilError, abi_word, encode_call
from tests.chain.emitter import TOPIC

SPENDERS: Final = (SPENDER, STRANGER)
STATUSES: Final = (None, *LeaseStatus)
"""Statuses by the contract's number; None: no such lease."""
PRICE: Final = 1000
NEWEST: Final = 60
"""Newest leases that still get transactions."""

Transaction = tuple[LocalAccount, str, int]
"""Sender, calldata, wei."""


@dataclass(frozen=True)
class ContractLease:
    """A lease as `getLease` shows it."""

    lease_id: str
    spender: str
    earner: str
    status: LeaseStatus
    committed: int
    most: int
    expires_at: int
    words: tuple[int, ...]


async def get_contract_lease(agreement: AnvilAgreement, lease_id: str) -> ContractLease | None:
    """Call `getLease`; None: the contract has no such lease (it reverts)."""
    try:
        said = await agreement.chain.call_method(
            "eth_call", {"to": agreement.address, "data": encode_call("getLease(bytes32)", lease_id)}, "latest"
        )
    except AnvilError:
        return None
    words = tuple(int(said[start : start + 64], 16) for start in range(2, len(said), 64))
    status = STATUSES[words[18]]
    assert status is not None
    return ContractLease(lease_id, f"0x{words[0]:040x}", f"0x{words[1]:040x}", status, words[15], words[14], words[13], words)


async def list_created_leases(agreement: AnvilAgreement, first: int = 0) -> list[str]:
    """List the ids of all leases in order of creation."""
    where = {"address": agreement.address, "fromBlock": hex(first), "toBlock": "latest", "topics": [TOPIC["LeaseCreated"]]}
    return [log["topics"][1] for log in await agreement.chain.call_method("eth_getLogs", where)]


@dataclass
class Traffic:
    """Sends transactions until cancelled. What the contract refuses is mined and reverts; nothing waits for it."""

    agreement: AnvilAgreement
    dice: random.Random
    deepest: int
    """Depth of a reorganisation at most, in blocks: none reaches a final block."""
    sent: Counter[str] = field(default_factory=Counter)
    reorgs: Counter[int] = field(default_factory=Counter)
    """Depth -> how often."""
    _raw: dict[str, str] = field(default_factory=dict)
    _recent: deque[str] = field(default_factory=lambda: deque(maxlen=NEWEST))
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Send transactions until cancelled; a chain that does not answer is asked again."""
        while True:
            await asyncio.sleep(self.dice.uniform(0.05, 0.5))
            with suppress(AnvilError, aiohttp.ClientError, TimeoutError):
                async with self._lock:
                    await self._act()

    async def fork(self) -> None:
        """Reorganise the chain from time to time until cancelled."""
        while True:
            await asyncio.sleep(self.dice.uniform(3, 20))
            await self.reorganise()

    async def _act(self) -> None:
        head = await self.agreement.chain.head_number()
        for lease_id in await list_created_leases(self.agreement, max(0, head - 2)):
            if lease_id not in self._recent:
                self._recent.append(lease_id)
        if not self._recent or self.dice.random() < 0.3:
            await self._send("create", await self._create())
            return
        lease = await get_contract_lease(self.agreement, self.dice.choice(self._recent))
        if lease is None:
            return  # a reorganisation took it
        # One after the other at once: they often stand in one block.
        for _ in range(self.dice.choice([1, 1, 1, 2, 3])):
            what = self._what(lease)
            await self._send(what, self._transaction(what, lease))

    async def _create(self) -> Transaction:
        block = await self.agreement.chain.call_method("eth_getBlockByNumber", "latest", False)
        earner = self.dice.choices([EARNER, OPERATOR], [6, 1])[0].address
        expires = int(block["timestamp"], 16) + self.dice.randrange(600, 30 * 86_400)
        signature = "createLease(address,bytes32,uint256,uint64,uint32)"
        data = encode_call(signature, earner, PRODUCT, PRICE, expires, self.dice.randrange(1, 4))
        return self.dice.choice(SPENDERS), data, PRICE

    def _what(self, lease: ContractLease) -> str:
        match lease.status:
            case LeaseStatus.CREATED:
                choices = {"approve": 8, "cancel": 1, "commit": 1}
            case LeaseStatus.APPROVED:
                choices = {"commit": 8, "execute": 4, "cancel": 1, "dispute": 2}
            case LeaseStatus.EXECUTED:
                choices = {"finalize": 3, "dispute": 2, "commit": 1, "cancel": 1}
            case LeaseStatus.DISPUTED:
                choices = {"resolve": 4, "commit": 1, "cancel": 1}
            case _:
                choices = {"approve": 1, "commit": 1, "execute": 1, "cancel": 1, "dispute": 1, "finalize": 1, "resolve": 1}
        return self.dice.choices(list(choices), list(choices.values()))[0]

    def _transaction(self, what: str, lease: ContractLease) -> Transaction:
        spender = next((one for one in SPENDERS if one.address.lower() == lease.spender), SPENDER)
        earner = EARNER if lease.earner == EARNER.address.lower() else OPERATOR
        lease_id = lease.lease_id
        match what:
            case "approve":
                return earner, encode_call("approveLease(bytes32)", lease_id), 0
            case "commit":
                computation = "0x" + keccak(f"{lease_id} {self.dice.randrange(4)}".encode()).hex()
                result = "0x" + self.dice.randbytes(32).hex()
                return earner, encode_call("commitResult(bytes32,bytes32,bytes32)", lease_id, computation, result), 0
            case "execute":
                return earner, encode_call("executeLease(bytes32)", lease_id), 0
            case "cancel":
                return self.dice.choice([earner, spender]), encode_call("cancelLease(bytes32)", lease_id), 0
            case "finalize":
                return spender, encode_call("finalizeLease(bytes32)", lease_id), 0
            case "dispute":
                selector = keccak(text="raiseDispute(bytes32,string)")[:4]
                arguments = encode(["bytes32", "string"], [bytes.fromhex(lease_id[2:]), "not what was agreed \0 \u202e"])
                return spender, "0x" + (selector + arguments).hex(), PRICE // 10
            case _:
                valid = self.dice.randrange(2)
                return OWNER, encode_call("resolveDispute(bytes32,bool)", lease_id) + abi_word(valid), 0

    async def _send(self, what: str, transaction: Transaction) -> None:
        account, data, value = transaction
        raw = await self.agreement.chain.sign_transaction(account, self.agreement.address, data, value=value)
        self._raw[await self.agreement.chain.call_method("eth_sendRawTransaction", raw)] = raw
        self.sent[what] += 1

    async def reorganise(self) -> None:
        """Replace the newest blocks by empty ones, or by others with the same transactions elsewhere and the last few lost."""
        chain = self.agreement.chain
        async with self._lock:
            head = await chain.head_number()
            depth = min(self.dice.choice([1, 1, 2, 3, self.dice.randrange(1, self.deepest + 1), self.deepest]), head - 1)
            if depth < 1 or head - depth <= self.agreement.block:
                return
            kept = await self._elsewhere(head, depth) if self.dice.random() < 0.7 else []
            # anvil loses a block when it mines while it reorganises.
            await chain.call_method("evm_setIntervalMining", 0)
            try:
                with suppress(AnvilError):
                    await chain.call_method("anvil_dropAllTransactions")
                await chain.reorg(depth, kept)
                # Its clock goes back with its blocks, further each time.
                await chain.call_method("evm_setTime", int(time.time()))
            finally:
                await chain.call_method("evm_setIntervalMining", 1)
            self.reorgs[depth] += 1

    async def _elsewhere(self, head: int, depth: int) -> list[tuple[str, int]]:
        dropped: list[str] = []
        for number in range(head - depth + 1, head + 1):
            block: dict[str, Any] = await self.agreement.chain.call_method("eth_getBlockByNumber", hex(number), False)
            dropped += [self._raw[one] for one in block["transactions"] if one in self._raw]
        kept = dropped[: self.dice.randrange(len(dropped) + 1)]
        return list(zip(kept, sorted(self.dice.randrange(depth) for _ in kept), strict=True))
