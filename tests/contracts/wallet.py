"""An Earner that is a contract (ERC-1271): it accepts its owner's signatures, or misbehaves when asked."""

from __future__ import annotations

from pandacea_sdk.protocol.contract import ContractAbi
from tests.chain.wallet_setup import WalletBehaviour
from tests.contracts.agreement import Agreement, Done, artifact


class Wallet:
    """The contract of `contracts/test/solidity/Wallet.sol`."""

    def __init__(self, agreement: Agreement, *, owner: str) -> None:
        self._agreement = agreement
        self._abi = ContractAbi(artifact("Wallet"))
        self.address = agreement.deploy(self._abi, owner)

    def behave(self, mood: WalletBehaviour) -> None:
        """Set what it answers."""
        call = self._abi.encode_call("behave", int(mood))
        assert isinstance(self._agreement.raw(call, by=self._agreement.owner, to=self.address), Done)
