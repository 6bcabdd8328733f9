"""An Ethereum chain in memory: py-evm, set up by eth-tester, with blocks, receipts and logs stored for JSON-RPC.

Synchronous and without I/O. Blocks carry the seconds of the given clock plus what `advance_time` added.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import rlp
from eth.abc import BlockHeaderAPI, ComputationAPI, ReceiptAPI, SignedTransactionAPI, StateAPI
from eth.exceptions import Revert, VMError
from eth.vm.spoof import SpoofTransaction
from eth_account import Account as EthAccount
from eth_tester.backends.pyevm.main import PyEVMBackend, get_default_genesis_params
from eth_tester.exceptions import ValidationError as EthTesterValidationError
from eth_typing import Address
from eth_utils.exceptions import ValidationError
from rlp.exceptions import RLPException

from pandacea.devchain.model import (
    CallRequest,
    DevAccount,
    ExecutionReverted,
    IncludedTransaction,
    MinedBlock,
    MinedLog,
    TransactionRefused,
)
from pandacea.errors import Refused
from pandacea_sdk.protocol.ids import ADDRESS_ANY_CASE

_TRANSFER_GAS: Final = 21_000
CHAIN_ID: Final = 131277322940537
"""eth-tester's chain id; answering another would break EIP-712 on-chain."""

MAX_AHEAD_SECONDS: Final = 10
"""By which blocks may be ahead of the clock in a burst: each needs a second of its own, and a node distrusts the future."""

GAS_PRICE_WEI: Final = 2 * 10**9
PRIORITY_FEE_WEI: Final = 10**9
"""Both per gas. The base fee starts at 1 gwei and falls, because blocks are nearly empty."""


class DevLedger:
    """The embedded chain. Methods that add a block say so."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds; the genesis block carries the current second."""
        self._clock = clock
        self._offset = 0
        self._backend = PyEVMBackend(genesis_parameters=get_default_genesis_params({"timestamp": int(clock())}))
        self._chain = self._backend.chain
        self.accounts = tuple(
            DevAccount("0x" + key.public_key.to_canonical_address().hex(), key.to_hex()) for key in self._backend.account_keys
        )
        genesis = self._chain.get_canonical_head()
        self.blocks: list[MinedBlock] = [MinedBlock(genesis, genesis.hash, len(rlp.encode(genesis)), ())]
        self._by_hash: dict[bytes, int] = {genesis.hash: 0}
        self._mined: dict[bytes, IncludedTransaction] = {}
        self._logs: list[MinedLog] = []

    # ---------------------------------------------------------------------------------------------- time

    @property
    def head(self) -> MinedBlock:
        """The newest block of the chain."""
        return self.blocks[-1]

    @property
    def head_number(self) -> int:
        """The number of the head."""
        return len(self.blocks) - 1

    def now(self) -> float:
        """Return the chain's time, Unix seconds."""
        return self._clock() + self._offset

    def seconds_until_next_block(self) -> float:
        """Return the seconds until a block may be mined at most `MAX_AHEAD_SECONDS` ahead of the clock; 0: now."""
        earliest: int = self.head.header.timestamp + 1 - MAX_AHEAD_SECONDS
        return max(0.0, earliest - self.now())

    def mine_if_stale(self) -> None:
        """Mine an empty block if the head is at least a second old, so that a requested head is never stale."""
        if self.now() >= self.head.header.timestamp + 1:
            self._mine_block([])

    def advance_time(self, seconds: int) -> None:
        """Move the chain's time `seconds` > 0 forward, from the head or the clock, whichever is later, and mine an empty block."""
        if seconds <= 0:
            raise Refused(f"cannot move the chain by {seconds} seconds: its time only goes forward")
        target = max(self.head.header.timestamp, int(self.now())) + seconds
        self._offset += target - int(self.now())
        self._mine_block([])

    # ---------------------------------------------------------------------------------------------- transactions

    def mine_transactions(self, raw: Sequence[bytes]) -> list[bytes | TransactionRefused]:
        """Mine signed transactions into one block, in order; return for each its hash, or why it is refused."""
        results: list[bytes | TransactionRefused] = []
        applied = []
        self._chain.set_header_timestamp(self._next_timestamp())
        for encoded in raw:
            try:
                transaction = self._chain.get_vm().get_transaction_builder().decode(encoded)
                if transaction.chain_id != CHAIN_ID:  # py-evm does not check
                    raise ValidationError(f"signed for chain {transaction.chain_id}, this is chain {CHAIN_ID}")
                _, receipt, _ = self._chain.apply_transaction(transaction)
            except (ValidationError, EthTesterValidationError, RLPException, VMError, ValueError, TypeError) as error:
                results.append(TransactionRefused(f"{type(error).__name__}: {error}"))
                continue
            applied.append((transaction, receipt))
            results.append(bytes(transaction.hash))
        if applied:
            self._mine_block(applied)
        return results

    def fund(self, address: str, wei: int) -> None:
        """Send ether from the last of the accounts to an address, in a block of its own.

        Raises:
            Refused: the address is malformed.
            TransactionRefused: the account has too little ether.
        """
        if not ADDRESS_ANY_CASE.fullmatch(address):
            raise Refused(f"{address[:80]!r} cannot be funded: an address is 0x and 40 hex digits.")
        account = self.accounts[-1]
        state = self.state_at(self.head)
        signed = EthAccount.sign_transaction(
            {
                "to": bytes.fromhex(address[2:]),
                "value": wei,
                "gas": _TRANSFER_GAS,
                "gasPrice": GAS_PRICE_WEI,
                "nonce": state.get_nonce(Address(bytes.fromhex(account.address[2:]))),
                "chainId": CHAIN_ID,
            },
            account.private_key,
        )
        (answer,) = self.mine_transactions([bytes(signed.raw_transaction)])
        if isinstance(answer, TransactionRefused):
            raise answer

    def find_transaction(self, transaction_hash: bytes) -> IncludedTransaction | None:
        """Find a mined transaction, with its receipt."""
        return self._mined.get(transaction_hash)

    # ---------------------------------------------------------------------------------------------- reading

    def find_block(self, block_hash: bytes) -> MinedBlock | None:
        """Find a block by its hash."""
        number = self._by_hash.get(block_hash)
        return None if number is None else self.blocks[number]

    def list_logs(self, first: int, last: int) -> Iterator[MinedLog]:
        """List the logs of blocks `first` to `last`, both included; beyond the head there are none."""
        start = bisect_left(self._logs, first, key=lambda log: log.block_number)
        end = bisect_right(self._logs, last, key=lambda log: log.block_number)
        return iter(self._logs[start:end])

    def state_at(self, block: MinedBlock) -> StateAPI:
        """Return the state after a block."""
        state: StateAPI = self._chain.get_vm(at_header=block.header).state
        return state

    def run_call(self, call: CallRequest, block: MinedBlock) -> bytes:
        """Run a call on a block's state without changing it.

        Raises:
            ExecutionReverted: the contract reverted.
            TransactionRefused: the sender has too little ether, or the gas is below the intrinsic cost.
        """
        return self._run(call, call.gas or block.header.gas_limit, block).output

    def estimate_gas(self, call: CallRequest, block: MinedBlock) -> int:
        """Estimate the gas with which a call succeeds: what it used, raised by fifths until it does.

        Raises:
            ExecutionReverted: it fails even with the gas of a whole block.
        """
        limit: int = block.header.gas_limit
        computation = self._run(call, limit, block)
        gas: int = limit - computation.get_gas_remaining()
        while gas < limit:
            try:
                self._run(call, gas, block)
            except (ExecutionReverted, TransactionRefused):
                gas += gas // 5
            else:
                break
        return min(gas, limit)

    # ---------------------------------------------------------------------------------------------- inside

    def _next_timestamp(self) -> int:
        following: int = self.head.header.timestamp + 1
        return max(following, int(self.now()))

    def _mine_block(self, applied: list[tuple[SignedTransactionAPI, ReceiptAPI]]) -> None:
        if not applied:
            self._chain.set_header_timestamp(self._next_timestamp())
        self._backend.mine_blocks(1)
        header = self._chain.get_canonical_head()
        body = sum(len(transaction.encode()) for transaction, _ in applied)
        block = MinedBlock(header, header.hash, len(rlp.encode(header)) + body, tuple(self._included(header, applied)))
        self.blocks.append(block)
        self._by_hash[block.hash] = header.block_number
        for mined in block.transactions:
            self._mined[mined.hash] = mined
            self._logs.extend(mined.logs)

    def _included(
        self, header: BlockHeaderAPI, applied: list[tuple[SignedTransactionAPI, ReceiptAPI]]
    ) -> Iterator[IncludedTransaction]:
        used, log_index = 0, 0
        for position, (transaction, receipt) in enumerate(applied):
            transaction_hash, sender = bytes(transaction.hash), bytes(transaction.sender)
            logs = tuple(
                MinedLog(
                    header.block_number,
                    header.hash,
                    transaction_hash,
                    position,
                    log_index + offset,
                    bytes(log.address),
                    tuple(topic.to_bytes(32, "big") for topic in log.topics),
                    bytes(log.data),
                )
                for offset, log in enumerate(receipt.logs)
            )
            yield IncludedTransaction(
                transaction=transaction,
                hash=transaction_hash,
                sender=sender,
                block_number=header.block_number,
                index=position,
                succeeded=receipt.state_root == b"\x01",
                gas_used=receipt.gas_used - used,
                cumulative_gas_used=receipt.gas_used,
                bloom=receipt.bloom,
                created=None if transaction.to else _contract_address(sender, transaction.nonce),
                logs=logs,
            )
            used, log_index = receipt.gas_used, log_index + len(logs)

    def _run(self, call: CallRequest, gas: int, block: MinedBlock) -> ComputationAPI:
        with self._chain.get_vm(at_header=block.header).in_costless_state() as state:
            unsigned = self._chain.create_unsigned_transaction(
                nonce=state.get_nonce(call.sender), gas_price=0, gas=gas, to=call.to, value=call.value, data=call.data
            )
            try:
                computation: ComputationAPI = state.apply_transaction(SpoofTransaction(unsigned, from_=call.sender))
            except (ValidationError, ValueError) as error:
                raise TransactionRefused(str(error)) from error
        if computation.is_error:
            reverted = isinstance(computation.error, Revert)
            raise ExecutionReverted(computation.output if reverted else b"", "" if reverted else str(computation.error))
        return computation


def _contract_address(sender: bytes, nonce: int) -> bytes:
    from eth._utils.address import generate_contract_address

    return bytes(generate_contract_address(Address(sender), nonce))
