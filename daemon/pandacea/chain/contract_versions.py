"""The versions of LeaseAgreement: detecting them, and completing the events of the first ("v0")."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import structlog

from pandacea.chain.approvals.signed_transactions import UnprovableError, fetch_signed_transaction
from pandacea.chain.events import function_selector
from pandacea.chain.rpc import Endpoint
from pandacea.chain.rpc_faults import FaultKind, RpcFault
from pandacea.domain.chain_view import ChainEvent
from pandacea.domain.ids import Address, Hash32, LeaseId, Timestamp
from pandacea.domain.lease import NO_EXPIRY, LeaseCreated, LeaseExecuted, LeaseTerms
from pandacea.errors import Broken
from pandacea_sdk.protocol import hashing

log = structlog.get_logger(__name__)


class ContractVersion(StrEnum):
    """Versions of LeaseAgreement that the node serves."""

    V0 = "v0"  # product only in storage, no expiry, one execution, anyone may execute
    V1 = "v1"  # ids bound to terms, LeaseTerms, commitments


OPERATOR_OF_SELECTOR: Final = function_selector("operatorOf(address)")
NONCE_OF_SELECTOR: Final = function_selector("nonceOf(address)")
LEASE_EXISTS_SELECTOR: Final = function_selector("leaseExists(bytes32)")
GET_LEASE_SELECTOR: Final = function_selector("getLease(bytes32)")
APPROVE_LEASE_SELECTOR: Final = function_selector("approveLease(bytes32)")
EXECUTE_LEASE_SELECTOR: Final = function_selector("executeLease(bytes32)")

_AT_ONCE: Final = 8
_ARBITER_WORD: Final = 17
"""Place of the arbiter among the words of v1's `getLease`."""


def abi_word(value: str | int) -> str:
    """Encode an address, a bytes32 or a number as an ABI word of 64 hex digits."""
    return hashing.abi_word(value).hex()


async def fetch_arbiter(endpoint: Endpoint, contract: Address, lease_id: LeaseId) -> Address | None:
    """Ask which arbiter a v1 lease has; None: what the endpoint shows is not such a lease.

    Raises:
        RpcFault: the endpoint failed, or does not know the lease.
    """
    answer = await endpoint.eth_call(contract, GET_LEASE_SELECTOR + abi_word(lease_id), "latest")
    word = answer[_ARBITER_WORD * 32 : (_ARBITER_WORD + 1) * 32]
    if len(word) != 32 or any(word[:12]):
        return None
    return Address("0x" + word[12:].hex())


OLD_STATE_FAULTS: Final = frozenset({FaultKind.ERROR, FaultKind.UNSUPPORTED})
"""How endpoints refuse a question about an old block: they keep no state that old, or sell it apart."""


async def detect_contract_version(endpoint: Endpoint, contract: Address, earner: Address) -> ContractVersion:
    """Detect the contract's version by its functions: v1 answers `operatorOf` and `nonceOf`, v0 only `leaseExists`.

    Raises:
        RpcFault: the endpoint failed.
        Broken: the contract is not a LeaseAgreement.
    """
    if await _answers(endpoint, contract, OPERATOR_OF_SELECTOR + abi_word(earner)) and await _answers(
        endpoint, contract, NONCE_OF_SELECTOR + abi_word(earner)
    ):
        return ContractVersion.V1
    if await _answers(endpoint, contract, LEASE_EXISTS_SELECTOR + abi_word(0)):
        return ContractVersion.V0
    raise Broken(
        f"The contract at {contract} is not a LeaseAgreement: it does not answer leaseExists(bytes32) at {endpoint.name}. "
        "Correct blockchain.contract_address."
    )


async def find_deploy_block(endpoint: Endpoint, contract: Address) -> int:
    """Find the block that created a contract by bisection over `eth_getCode`; 0 when the endpoint keeps no state that old.

    Raises:
        RpcFault: the endpoint failed.
    """
    low, high = 0, int((await endpoint.get_header("latest")).number, 16)
    while low < high:
        middle = (low + high) // 2
        try:
            there = bool(await endpoint.get_code(contract, middle))
        except RpcFault as fault:
            if fault.method == "eth_getCode" and fault.kind in OLD_STATE_FAULTS:
                log.warning(
                    "chain.deploy_block_unknown",
                    endpoint=endpoint.name,
                    reason=fault.reason,
                    meaning="the chain is read from block 0; state blockchain.start_block, or use a deployment record",
                )
                return 0
            raise
        low, high = (low, middle) if there else (middle + 1, high)
    return low


async def _answers(endpoint: Endpoint, contract: Address, data: str) -> bool:
    try:
        return len(await endpoint.eth_call(contract, data)) == 32
    except RpcFault as fault:
        if fault.reverted:  # the function is not there
            return False
        raise


@dataclass(frozen=True, slots=True)
class V0Lease:
    """The first eight fields of every v0 `getLease`."""

    spender: Address
    earner: Address
    data_product_id: Hash32
    price: int
    max_price: int
    approved: bool
    executed: bool
    disputed: bool


async def fetch_v0_lease(endpoint: Endpoint, contract: Address, lease_id: LeaseId, block: int | str) -> V0Lease:
    """Call `getLease` at a block; at the newest where the endpoint keeps no state that old (the fields read never change).

    Raises:
        RpcFault: the endpoint failed or answered too few bytes.
    """
    data = GET_LEASE_SELECTOR + abi_word(lease_id)
    try:
        answer = await endpoint.eth_call(contract, data, block)
    except RpcFault as fault:
        if block == "latest" or fault.kind not in OLD_STATE_FAULTS:
            raise
        answer = await endpoint.eth_call(contract, data)
    if len(answer) < 8 * 32:
        raise endpoint.inconsistent_fault("eth_call", f"getLease({lease_id}) answered {len(answer)} bytes")
    words = [answer[start : start + 32] for start in range(0, 256, 32)]
    return V0Lease(
        Address("0x" + words[0][12:].hex()),
        Address("0x" + words[1][12:].hex()),
        Hash32("0x" + words[2].hex()),
        int.from_bytes(words[3], "big"),
        int.from_bytes(words[4], "big"),
        any(words[5]),
        any(words[6]),
        any(words[7]),
    )


class V0EventCompleter:
    """Completes the events of a v0 contract with what it does not emit."""

    def __init__(self, contract: Address, earner: Address, approvers: frozenset[Address], find_known: Known) -> None:
        """`approvers`: the Earner and the node's own keys; `find_known`: returns those leases of a list that are this Earner's."""
        self._contract = contract
        self._approvers = approvers
        self._find_known = find_known
        self._earner = earner
        self._wallet: bool | None = None
        self.stranger_executions = 0
        """Executions that a stranger signed: logged and dropped."""

    async def complete_events(self, endpoint: Endpoint, events: Sequence[ChainEvent]) -> list[ChainEvent]:
        """Add the product to each creation, and drop executions that a stranger signed.

        Raises:
            RpcFault: the endpoint failed; nothing was decided.
        """
        created = {seen.event.lease_id for seen in events if isinstance(seen.event, LeaseCreated)}
        executed = [seen.event.lease_id for seen in events if isinstance(seen.event, LeaseExecuted)]
        ours = created | (await self._find_known(sorted(set(executed) - created)) if executed else set())
        gate = asyncio.Semaphore(_AT_ONCE)

        async def complete_event(seen: ChainEvent) -> list[ChainEvent]:
            async with gate:
                if isinstance(seen.event, LeaseCreated):
                    return [seen, await self._terms(endpoint, seen, seen.event)]
                if isinstance(seen.event, LeaseExecuted) and seen.event.lease_id in ours and await self._stranger(endpoint, seen):
                    return []
                return [seen]

        return [seen for found in await asyncio.gather(*map(complete_event, events)) for seen in found]

    async def _terms(self, endpoint: Endpoint, seen: ChainEvent, event: LeaseCreated) -> ChainEvent:
        head = await fetch_v0_lease(endpoint, self._contract, event.lease_id, seen.block)
        if (head.spender, head.earner) != (event.spender, event.earner):
            raise endpoint.inconsistent_fault("eth_call", f"getLease({event.lease_id}) names other parties than its LeaseCreated")
        terms = LeaseTerms(event.lease_id, head.data_product_id, Timestamp(NO_EXPIRY), 1)
        return ChainEvent(seen.block, seen.block_hash, seen.log_index, seen.transaction, terms, part=1)

    async def _stranger(self, endpoint: Endpoint, seen: ChainEvent) -> bool:
        """Whether a stranger provably signed the execution. Without a proof the execution counts, as any denial does."""
        try:
            signed = await fetch_signed_transaction(endpoint, seen.transaction)
        except UnprovableError:
            return False
        if signed.hash != seen.transaction or signed.signer in self._approvers:
            return False
        direct = signed.to == self._contract and signed.data[:4].hex() == EXECUTE_LEASE_SELECTOR[2:]
        if not direct and await self._earner_is_contract(endpoint):
            return False  # anyone's transaction may have called the Earner's wallet contract
        self.stranger_executions += 1
        log.error(
            "lease.executed_by_stranger",
            lease_id=seen.event.lease_id,
            signer=signed.signer,
            transaction=seen.transaction,
            remedy="The v0 contract lets anyone execute a lease. The lease is still served; check it on-chain.",
        )
        return True

    async def _earner_is_contract(self, endpoint: Endpoint) -> bool:
        if self._wallet is None:
            self._wallet = bool(await endpoint.get_code(self._earner))
        return self._wallet


Known = Callable[[Sequence[LeaseId]], Awaitable[set[LeaseId]]]
