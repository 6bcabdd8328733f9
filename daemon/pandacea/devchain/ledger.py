"""An Ethereum chain in memory: py-evm, set up by eth-tester, with blocks, receipts and logs kept ready for JSON-RPC.

Synchronous and without I/O. Time comes in as a clock; blocks carry its seconds plus whatever `travel` added.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import rlp
from eth.abc import BlockHeaderAPI, ComputationAPI, StateAPI
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
"""eth-tester's own; answering another one would break EIP-712 on-chain."""

MAX_AHEAD_SECONDS: Final = 10
"""How far blocks may run ahead of the clock in a burst: each needs a second of its own, and a node distrusts the future."""

GAS_PRICE_WEI: Final = 2 * 10**9
PRIORITY_FEE_WEI: Final = 10**9
"""Wei per gas. The base fee starts at 1 gwei and falls, for blocks are nearly empty."""


class DevLedger:
    """The chain. Every method that adds a block says so."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: Unix seconds; the genesis block carries its present second."""
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
        """The last block."""
        return self.blocks[-1]

    @property
    def head_number(self) -> int:
        """The head's number."""
        return len(self.blocks) - 1

    def now(self) -> float:
        """The chain's clock, Unix seconds."""
        return self._clock() + self._offset

    def seconds_until_next_block(self) -> float:
        """Seconds until a block may be mined without running more than `SLACK_SECONDS` ahead of the clock; 0: at once."""
        earliest: int = self.head.header.timestamp + 1 - MAX_AHEAD_SECONDS
        return max(0.0, earliest - self.now())

    def mine_if_stale(self) -> None:
        """Mine an empty block if the head is a second old or more: asked for on demand, the head is never stale."""
        if self.now() >= self.head.header.timestamp + 1:
            self._seal([])

    def advance_time(self, seconds: int) -> None:
        """Move the chain's clock `seconds` > 0 forward, from the head's time or the clock's, and mine an empty block there."""
        if seconds <= 0:
            raise Refused(f"cannot travel {seconds} seconds: time on a chain only goes forward")
        target = max(self.head.header.timestamp, int(self.now())) + seconds
        self._offset += target - int(self.now())
        self._seal([])

    # ---------------------------------------------------------------------------------------------- transactions

    def mine_transactions(self, raw: Sequence[bytes]) -> list[bytes | TransactionRefused]:
        """Mine signed transactions into one block, in order; per transaction its hash, or why it cannot enter."""
        answers: list[bytes | TransactionRefused] = []
        applied = []
        self._chain.set_header_timestamp(self._next_timestamp())
        for one in raw:
            try:
                transaction = self._chain.get_vm().get_transaction_builder().decode(one)
                if transaction.chain_id != CHAIN_ID:  # py-evm does not look
                    raise ValidationError(f"signed for chain {transaction.chain_id}, this is chain {CHAIN_ID}")
                _, receipt, _ = self._chain.apply_transaction(transaction)
            except (ValidationError, EthTesterValidationError, RLPException, VMError, ValueError, TypeError) as error:
                answers.append(TransactionRefused(f"{type(error).__name__}: {error}"))
                continue
            applied.append((transaction, receipt))
            answers.append(bytes(transaction.hash))
        if applied:
            self._seal(applied)
        return answers

    def fund(self, address: str, wei: int) -> None:
        """Send an address ether from the last of the accounts, and mine it.

        Raises:
            Refused: it is no address; TransactionRefused: the account has not as much.
        """
        if not ADDRESS_ANY_CASE.fullmatch(address):
            raise Refused(f"{address[:80]!r} cannot be funded: it is no address, 0x and 40 hex digits.")
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
        """The transaction and its receipt."""
        return self._mined.get(transaction_hash)

    # ---------------------------------------------------------------------------------------------- reading

    def find_block(self, block_hash: bytes) -> MinedBlock | None:
        """The block with this hash."""
        number = self._by_hash.get(block_hash)
        return None if number is None else self.blocks[number]

    def list_logs(self, first: int, last: int) -> Iterator[MinedLog]:
        """Logs of the blocks `first` to `last`, both included; beyond the head there are none."""
        start = bisect_left(self._logs, first, key=lambda log: log.block_number)
        end = bisect_right(self._logs, last, key=lambda log: log.block_number)
        return iter(self._logs[start:end])

    def state_at(self, block: MinedBlock) -> StateAPI:
        """The accounts as that block left them."""
        state: StateAPI = self._chain.get_vm(at_header=block.header).state
        return state

    def run_call(self, call: CallRequest, block: MinedBlock) -> bytes:
        """Run a call on that block's state and forget it.

        Raises:
            ExecutionReverted: with the contract's revert data.
            TransactionRefused: the sender lacks the value, or the gas is below the intrinsic cost.
        """
        return self._run(call, call.gas or block.header.gas_limit, block).output

    def estimate_gas(self, call: CallRequest, block: MinedBlock) -> int:
        """Gas with which the call succeeds: what it used, tried again, raised by fifths until it does.

        Raises:
            ExecutionReverted: it fails with all the gas of a block, too.
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

    def _seal(self, applied: list[tuple[Any, Any]]) -> None:
        if not applied:
            self._chain.set_header_timestamp(self._next_timestamp())
        self._backend.mine_blocks(1)
        header = self._chain.get_canonical_head()
        body = sum(len(transaction.encode()) for transaction, _ in applied)
        block = MinedBlock(header, header.hash, len(rlp.encode(header)) + body, tuple(self._record(header, applied)))
        self.blocks.append(block)
        self._by_hash[block.hash] = header.block_number
        for mined in block.transactions:
            self._mined[mined.hash] = mined
            self._logs.extend(mined.logs)

    def _record(self, header: BlockHeaderAPI, applied: list[tuple[Any, Any]]) -> Iterator[IncludedTransaction]:
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
                created=None if transaction.to else _created(sender, transaction.nonce),
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


def _created(sender: bytes, nonce: int) -> bytes:
    from eth._utils.address import generate_contract_address

    return bytes(generate_contract_address(Address(sender), nonce))
