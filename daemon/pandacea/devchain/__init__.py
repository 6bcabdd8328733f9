"""The embedded chain of the demo and of development: py-evm behind JSON-RPC on loopback. Its keys are public, its ether worthless."""

from pandacea.devchain.ledger import CHAIN_ID
from pandacea.devchain.model import DevAccount
from pandacea.devchain.server import DevChain

__all__ = ["CHAIN_ID", "DevAccount", "DevChain"]
