"""A contract as a party: it makes and cancels leases as told, and misbehaves when it is paid."""

from __future__ import annotations

from enum import IntEnum

from pandacea_sdk.protocol.contract import ContractAbi
from tests.contracts.agreement import CREATE_SHORT, ETHER, PRODUCT, Agreement, Done, Refusal, artifact


class Mood(IntEnum):
    """What the contract does when ether arrives."""

    ACCEPT = 0
    REFUSE = 1
    BURN = 2
    REENTER = 3


class Puppet:
    """The contract of `contracts/test/solidity/Puppet.sol`."""

    def __init__(self, agreement: Agreement) -> None:
        self._agreement = agreement
        self._abi = ContractAbi(artifact("Puppet"))
        self.address = agreement.deploy(self._abi)

    def behave(self, mood: Mood, data: bytes = b"") -> None:
        """Set what happens when it is paid; `data` is what it then calls the agreement with."""
        call = self._abi.encode_call("behave", int(mood), self._agreement.address, data)
        assert isinstance(self._agreement.raw(call, by=self._agreement.owner, to=self.address), Done)

    def act(self, data: bytes, value: int = 0) -> Done | Refusal:
        """Let it call the agreement."""
        call = self._abi.encode_call("act", self._agreement.address, data)
        return self._agreement.raw(call, by=self._agreement.owner, to=self.address, value=value)

    def create(self) -> str:
        """Let it lease one computation for one ether."""
        done = self.act(self._agreement.abi.encode_call(CREATE_SHORT, self._agreement.earner, PRODUCT, ETHER), value=ETHER)
        assert isinstance(done, Done), done
        return str(done.event("LeaseCreated")["leaseId"])

    def create_and_cancel(self) -> None:
        """Give it a credit of one ether."""
        lease = self.create()
        assert isinstance(self.act(self._agreement.abi.encode_call("cancelLease", lease)), Done)

    @property
    def entered(self) -> bool:
        """Whether its call from within a payment went through."""
        w3 = self._agreement.w3
        data = w3.eth.call({"to": w3.to_checksum_address(self.address), "data": self._abi.encode_call("entered")})
        return bool(self._abi.decode_result("entered", bytes(data)))
