"""The contract on eth-tester's py-evm without blocks: for the thousands of random calls of `test_law`. Gas costs nothing here.

One call takes 2 ms instead of the 15 of a mined transaction through web3, and the accounts' ether moves only by the contract.
"""

from __future__ import annotations

from typing import Any

from eth.exceptions import Revert
from eth.vm.spoof import SpoofTransaction
from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_tester import PyEVMBackend
from eth_tester.backends.pyevm.main import get_default_genesis_params

from pandacea.chain.rpc_messages import RpcLog
from pandacea.domain.ids import Hash32
from pandacea_sdk.protocol.contract import ContractEvent, lease_agreement
from tests.contracts.agreement import APPROVAL, GENESIS, RECEIPT, Refusal

CALL_GAS = 2_000_000
_LEASES, _CREDITS = 3, 6
"""Storage slots of the two mappings, as the artifact states them."""


class Evm:
    """A LeaseAgreement, ten accounts, and the clock. Addresses in lower-case hex."""

    def __init__(self) -> None:
        backend = PyEVMBackend(genesis_parameters=get_default_genesis_params({"timestamp": GENESIS}))
        self._chain: Any = backend.chain
        self._state: Any = self._chain.get_vm().state
        self._context: Any = self._state.execution_context
        self._context._base_fee_per_gas = 0
        self.abi = lease_agreement()
        self.chain_id = int(self._chain.chain_id)
        self.keys: dict[str, LocalAccount] = {
            account.address.lower(): account for account in (Account.from_key(key.to_hex()) for key in backend.account_keys)
        }
        self.accounts = list(self.keys)
        self.address = ""
        self.now = GENESIS
        self.logs: list[RpcLog] = []
        """Those of the last call that was not refused, as the node reads them."""

    def deploy(self, owner: str, arbiter: str) -> None:
        """Put the contract on the chain."""
        from eth._utils.address import generate_contract_address
        from eth_typing import Address

        nonce = self._state.get_nonce(_raw(owner))
        found = self.call(self.abi.encode_creation(owner, arbiter), by=owner, to="")
        assert not isinstance(found, Refusal)
        self.address = "0x" + generate_contract_address(Address(_raw(owner)), nonce).hex()

    def call(self, data: bytes, *, by: str, value: int = 0, to: str | None = None) -> list[ContractEvent] | Refusal:
        """One transaction in the second `now`: the contract's events, or its refusal."""
        self._context._timestamp = self.now
        self._state.lock_changes()
        unsigned = self._chain.create_unsigned_transaction(
            nonce=self._state.get_nonce(_raw(by)),
            gas_price=0,
            gas=5_000_000 if to == "" else CALL_GAS,
            to=_raw(self.address if to is None else to),
            value=value,
            data=data,
        )
        done = self._state.apply_transaction(SpoofTransaction(unsigned, from_=_raw(by)))
        if done.is_error:
            assert isinstance(done.error, Revert), done.error
            revert = self.abi.decode_revert(done.output)
            return Refusal(revert.name, revert.values)
        entries = [([topic.to_bytes(32, "big") for topic in topics], data) for _, topics, data in done.get_log_entries()]
        self.logs = [_log(self.address, topics, data) for topics, data in entries]
        events = [self.abi.decode_event(topics, data) for topics, data in entries]
        assert None not in events, "the contract emitted something that its ABI does not name"
        return [event for event in events if event is not None]

    def balance(self, account: str) -> int:
        """Read an account's balance in wei."""
        return int(self._state.get_balance(_raw(account)))

    def words(self, lease: str) -> tuple[int, ...]:
        """The four slots of a lease."""
        first = self._mapped(_raw(lease), _LEASES)
        return tuple(self._slot(first + offset) for offset in range(4))

    def status(self, lease: str) -> int:
        """The status byte of a lease, from its fourth slot."""
        return self.words(lease)[3] >> 32 & 0xFF

    def credit(self, account: str) -> int:
        """What an account may withdraw, from its slot."""
        return self._slot(self._mapped(_raw(account).rjust(32, b"\0"), _CREDITS))

    @property
    def domain(self) -> dict[str, Any]:
        """The EIP-712 domain of the contract under test."""
        return {
            "name": "Pandacea LeaseAgreement",
            "version": "1",
            "chainId": self.chain_id,
            "verifyingContract": self.address,
        }

    def sign_approval(self, lease: str, deadline: int, by: str) -> str:
        """EIP-712 signature of an approval."""
        values = {"leaseId": _raw(lease), "deadline": deadline}
        return "0x" + self.keys[by].sign_message(encode_typed_data(self.domain, {"Approval": APPROVAL}, values)).signature.hex()

    def sign(self, receipt: tuple[str, ...], by: str) -> str:
        """EIP-712 signature of a receipt."""
        values = {one["name"]: _raw(value) for one, value in zip(RECEIPT, receipt, strict=True)}
        return "0x" + self.keys[by].sign_message(encode_typed_data(self.domain, {"Receipt": RECEIPT}, values)).signature.hex()

    def _slot(self, slot: int) -> int:
        return int(self._state.get_storage(_raw(self.address), slot))

    @staticmethod
    def _mapped(key: bytes, slot: int) -> int:
        from eth_utils.crypto import keccak

        return int.from_bytes(keccak(key + slot.to_bytes(32, "big")), "big")


def _raw(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))


def _log(address: str, topics: list[bytes], data: bytes) -> RpcLog:
    nowhere = Hash32("0x" + "00" * 32)
    return RpcLog(address, ["0x" + topic.hex() for topic in topics], "0x" + data.hex(), "0x1", nowhere, nowhere, "0x0")
