"""A LeaseAgreement on its own eth-tester chain, driven through web3, with its parties and a clock the test sets."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount
from eth_tester import EthereumTester, PyEVMBackend
from eth_tester.backends.pyevm.main import get_default_genesis_params
from eth_tester.exceptions import TransactionFailed
from web3 import EthereumTesterProvider, Web3

from pandacea_sdk.protocol.contract import ContractAbi, ContractEvent, hash_product_id, lease_agreement

ROOT: Final = Path(__file__).resolve().parents[2]
GENESIS: Final = 2_000_000_000
"""The chain's first second."""
DAY: Final = 86_400
ETHER: Final = 10**18
RICHES: Final = 2**110
"""Wei of each account: more than a price can be."""
PRODUCT: Final = hash_product_id("diabetes")
CREATE: Final = "createLease(address,bytes32,uint256,uint64,uint32)"
CREATE_SHORT: Final = "createLease(address,bytes32,uint256)"
ZERO: Final = "0x" + "00" * 20
NO_LEASE: Final = "0x" + "77" * 32
RECEIPT: Final = [
    {"name": name, "type": "bytes32"} for name in ("leaseId", "computationId", "requestHash", "productVersion", "resultHash")
]

APPROVAL: Final = [{"name": "leaseId", "type": "bytes32"}, {"name": "deadline", "type": "uint256"}]


def word(number: int) -> str:
    """A 32-byte value with that number in its last bytes."""
    return "0x" + (bytes([0xC0]) + number.to_bytes(31, "big")).hex()


def artifact(name: str) -> dict[str, Any]:
    """A contract of the tests, as compiled."""
    found: dict[str, Any] = json.loads((ROOT / "contracts" / "test" / "artifacts" / f"{name}.json").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True, slots=True)
class Done:
    """A mined call: what it emitted, in order, and the second it ran in."""

    events: list[ContractEvent]
    timestamp: int
    gas_used: int

    def event(self, name: str) -> Mapping[str, Any]:
        """The values of the one event with this name."""
        (found,) = (event for event in self.events if event.name == name)
        return found.values


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call the contract undid: its custom error's name and values."""

    name: str
    values: Mapping[str, Any]


class Agreement:
    """The contract and everybody around it. Addresses in lower-case hex; `by` is who sends; `value` in wei."""

    def __init__(self) -> None:
        state = PyEVMBackend.generate_genesis_state(overrides={"balance": RICHES}, num_accounts=10)
        backend = PyEVMBackend(genesis_parameters=get_default_genesis_params({"timestamp": GENESIS}), genesis_state=state)
        self.tester = EthereumTester(backend)
        self.w3 = Web3(EthereumTesterProvider(self.tester))
        self.abi = lease_agreement()
        self.keys: dict[str, LocalAccount] = {
            account.address.lower(): account for account in (Account.from_key(key.to_hex()) for key in backend.account_keys)
        }
        names = [account.lower() for account in self.w3.eth.accounts]
        self.owner, self.arbiter, self.spender, self.earner, self.operator, self.stranger, self.other = names[:7]
        self.address = self.deploy(self.abi, self.owner, self.arbiter)

    # ---------------------------------------------------------------------------------------------- time

    @property
    def now(self) -> int:
        """The second the next transaction runs in."""
        return int(self.tester.get_block_by_number("pending")["timestamp"])

    def at(self, timestamp: int) -> None:
        """Let the next transaction run in this second."""
        self.tester.time_travel(timestamp)

    # ---------------------------------------------------------------------------------------------- calls

    def deploy(self, abi: ContractAbi, *values: Any) -> str:
        """Deploy a contract; its address."""
        sent = self.w3.eth.send_transaction(
            {"from": self._checked(self._first()), "data": abi.encode_creation(*values), "gas": 5_000_000}
        )
        receipt = self.w3.eth.get_transaction_receipt(sent)
        assert receipt["status"] == 1
        return str(receipt["contractAddress"]).lower()

    def creation(self, *values: Any) -> Done | Refusal:
        """Deploy another LeaseAgreement with these constructor arguments; what it emitted, or why it was refused."""
        return self.raw(self.abi.encode_creation(*values), by=self.stranger, to="", gas=5_000_000)

    def raw(self, data: bytes, *, by: str, value: int = 0, to: str | None = None, gas: int = 1_000_000) -> Done | Refusal:
        """Send a transaction; what it did, or how it was undone."""
        asked: Any = {"from": self._checked(by), "data": data, "value": value, "gas": gas}
        if to != "":  # "" creates
            asked["to"] = self._checked(to or self.address)
        receipt = self.w3.eth.get_transaction_receipt(self.w3.eth.send_transaction(asked))
        if receipt["status"] == 0:
            return self._refusal(asked, receipt["blockNumber"])
        ours = (receipt["contractAddress"] or self.address).lower()
        logs = [log for log in receipt["logs"] if log["address"].lower() == ours]
        events = [self.abi.decode_event([bytes(topic) for topic in log["topics"]], bytes(log["data"])) for log in logs]
        assert None not in events, "the contract emitted something that its ABI does not name"
        timestamp = self.w3.eth.get_block(receipt["blockNumber"])["timestamp"]
        return Done([event for event in events if event is not None], timestamp, receipt["gasUsed"])

    def send(self, function: str, *values: Any, by: str, value: int = 0) -> Done:
        """Call a function that must succeed."""
        found = self.raw(self.abi.encode_call(function, *values), by=by, value=value)
        assert isinstance(found, Done), found
        return found

    def refused(self, function: str, *values: Any, by: str, value: int = 0) -> Refusal:
        """Call a function that must be refused."""
        found = self.raw(self.abi.encode_call(function, *values), by=by, value=value)
        assert isinstance(found, Refusal), found
        return found

    def view(self, function: str, *values: Any) -> Any:
        """Call a view of the contract."""
        data = self.w3.eth.call({"to": self._checked(self.address), "data": self.abi.encode_call(function, *values)})
        return self.abi.decode_result(function, bytes(data))

    def lease(self, lease: str) -> Mapping[str, Any]:
        """Call `getLease` and decode it."""
        found: Mapping[str, Any] = self.view("getLease", lease)
        return found

    def status(self, lease: str) -> str:
        """Where a lease stands."""
        return str(self.lease(lease)["status"])

    def credit(self, account: str) -> int:
        """What an account may withdraw."""
        return int(self.view("creditOf", account))

    def balance(self, account: str | None = None) -> int:
        """Wei at an address; the contract's own without one."""
        return int(self.w3.eth.get_balance(self._checked(account or self.address)))

    # ---------------------------------------------------------------------------------------------- leases in each status

    def create(
        self,
        *,
        price: int = ETHER,
        expires_at: int | None = None,
        computations: int = 1,
        spender: str | None = None,
        earner: str | None = None,
    ) -> str:
        """A new lease; its id. It expires in 30 days unless told otherwise."""
        expiry = expires_at if expires_at is not None else self.now + 30 * DAY
        done = self.send(
            CREATE, earner or self.earner, PRODUCT, price, expiry, computations, by=spender or self.spender, value=price
        )
        return str(done.event("LeaseCreated")["leaseId"])

    def approved(self, **terms: Any) -> str:
        """A lease the Earner approved."""
        lease = self.create(**terms)
        self.send("approveLease", lease, by=terms.get("earner") or self.earner)
        return lease

    def committed(self, **terms: Any) -> str:
        """An approved lease with one result."""
        lease = self.approved(**terms)
        self.send("commitResult", lease, word(1), word(2), by=self.earner)
        return lease

    def executed(self, **terms: Any) -> str:
        """A lease of one computation, worked off."""
        lease = self.committed(**terms)
        self.send("executeLease", lease, by=self.earner)
        return lease

    def disputed(self, **terms: Any) -> str:
        """An approved lease in dispute."""
        lease = self.approved(**terms)
        self.send("raiseDispute", lease, "nothing came", by=self.spender, value=self.lease(lease)["stake"])
        return lease

    def disputed_after_commitment(self, **terms: Any) -> str:
        """A lease in dispute under which a result was committed."""
        lease = self.committed(**terms)
        self.send("raiseDispute", lease, "it is wrong", by=self.spender, value=self.lease(lease)["stake"])
        return lease

    def finalized(self) -> str:
        """Make a lease that is paid."""
        lease = self.executed()
        self.send("finalizeLease", lease, by=self.spender)
        return lease

    def cancelled(self) -> str:
        """A lease undone after approval."""
        lease = self.approved()
        self.send("cancelLease", lease, by=self.earner)
        return lease

    def refunded(self) -> str:
        """A dispute found valid."""
        lease = self.disputed()
        self.send("resolveDispute", lease, True, by=self.arbiter)
        return lease

    def settled(self) -> str:
        """A dispute found invalid."""
        lease = self.disputed()
        self.send("resolveDispute", lease, False, by=self.arbiter)
        return lease

    def in_status(self, status: str) -> str:
        """A lease in the status of this name."""
        made: str = getattr(self, "create" if status == "created" else status)()
        assert self.status(made) == status
        return made

    # ---------------------------------------------------------------------------------------------- receipts

    def receipt(self, lease: str, *, computation: int = 1, result: int = 2) -> tuple[str, ...]:
        """Receipt values: lease, computation, request, product version, result."""
        return (lease, word(computation), word(91), word(92), word(result))

    def domain(self, **changed: Any) -> dict[str, Any]:
        """The EIP-712 domain; `changed` overrides members."""
        return {
            "name": "Pandacea LeaseAgreement",
            "version": "1",
            "chainId": self.w3.eth.chain_id,
            "verifyingContract": self._checked(self.address),
        } | changed

    def sign_approval(self, lease: str, deadline: int, by: str, **domain: Any) -> str:
        """EIP-712 signature of an approval; `domain` overrides members of the domain."""
        values = {"leaseId": bytes.fromhex(lease[2:]), "deadline": deadline}
        message = encode_typed_data(self.domain(**domain), {"Approval": APPROVAL}, values)
        return "0x" + self.keys[by].sign_message(message).signature.hex()

    def sign(self, receipt: tuple[str, ...], by: str, **domain: Any) -> str:
        """EIP-712 signature of a receipt; `domain` overrides members of the domain."""
        whole = self.domain(**domain)
        values = {one["name"]: bytes.fromhex(value[2:]) for one, value in zip(RECEIPT, receipt, strict=True)}
        return "0x" + self.keys[by].sign_message(encode_typed_data(whole, {"Receipt": RECEIPT}, values)).signature.hex()

    # ---------------------------------------------------------------------------------------------- inside

    def _first(self) -> str:
        return next(iter(self.keys))

    def _checked(self, address: str) -> Any:
        return self.w3.to_checksum_address(address)

    def _refusal(self, asked: Any, block: int) -> Refusal:
        """Ask again on the state and in the second of that block: eth-tester tells the reason of a call only."""
        try:
            self.w3.eth.call(asked | {"gas": 30_000_000}, block)
        except TransactionFailed as error:
            text = str(error).removeprefix("execution reverted: ")  # then the bytes as Python writes them
            data = ast.literal_eval(text) if text.startswith(("b'", 'b"')) else b""
            revert = self.abi.decode_revert(data)
            return Refusal(revert.name, revert.values)
        raise AssertionError("the transaction failed, but the same call on the same block does not")
